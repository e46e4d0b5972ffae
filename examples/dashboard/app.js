import { Hubbub } from "./hubbub.js";

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const tiles = Array.from({ length: 500 }, () => ({ version: 0, load: 0, shown: $("tiles").appendChild(document.createElement("li")) }));
const changed = new Set(); // since the last painting
let hub, got, skipped, old, latest;

// keep takes what is newer than what is there, whether a message or a snapshot brought it: either may come first.
function keep(tile, { version, load }) {
  if (!tile || version <= tile.version) return;
  Object.assign(tile, { version, load });
  if (!changed.size) calm.matches ? setTimeout(paint, 1000) : requestAnimationFrame(paint);
  changed.add(tile);
}

// paint shows what has changed, at the screen's pace and not at the messages'.
function paint() {
  for (const { shown, load, version } of changed) {
    shown.textContent = load;
    shown.dataset.version = version;
    shown.style.setProperty("--load", load);
    shown.classList.toggle("high", load >= 95);
  }
  changed.clear();
}

// snapshot asks how all tiles are. What changes meanwhile comes as messages, since the room is joined already.
async function snapshot(from) {
  try {
    (await from.request("snapshot")).forEach((tile, i) => keep(tiles[i], tile));
  } catch (e) {
    // Lost with its line: on the way back the room says "lost", and it is asked for again.
    if (e.code !== "closed" && e.code !== "unknown") setTimeout(() => from === hub && snapshot(from), 1000);
  }
}

async function connect() {
  hub?.close();
  const here = (hub = new Hubbub($("slow").checked ? "slow" : "ws"));
  const seen = new Map(); // the newest version of each tile that a message brought
  got = skipped = old = 0;
  latest = Date.now();
  here.on("state", (state) => {
    if (here !== hub) return;
    $("state").textContent = state;
    $("state").className = state;
  });
  const room = here.room("tiles");
  room.on("message", ({ key, content, time }) => {
    got++;
    latest = time;
    if (content.version <= seen.get(key)) old++;
    seen.set(key, content.version);
    keep(tiles[key], content);
  });
  room.on("gap", ({ reason, count = 0 }) => {
    if (reason === "latest-by-key") skipped += count; // the newest of each of these tiles still comes
    else snapshot(here);
  });
  room.on("lost", () => snapshot(here)); // it was away, and the room keeps nothing
  try {
    await room.join({ timeout: Infinity });
  } catch {
    return; // the hub is closed: the state says so, or the switch was turned meanwhile
  }
  await snapshot(here);
}

$("slow").addEventListener("change", connect);
setInterval(() => {
  $("rate").textContent = got;
  got = 0;
  $("behind").textContent = (Math.max(0, Date.now() - latest) / 1000).toFixed(1);
  $("skipped").textContent = skipped;
  $("old").textContent = old;
}, 1000);
connect();
