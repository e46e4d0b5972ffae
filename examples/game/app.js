import { Hubbub } from "./hubbub.js";

const $ = (id) => document.getElementById(id);
const hub = new Hubbub("ws");
const height = 90;
const half = 9; // of a paddle

let match; // the room of it
let before, state, came; // the last two states, and when the newest came
let want = null, sent; // where the paddle shall be, and what the server knows of that

hub.on("state", (now) => {
  $("state").textContent = now;
  $("state").className = now;
  document.body.classList.toggle("away", now !== "online");
  sent = undefined; // what was on its way may be lost
});

// The server has put us into a room: a match begins, or goes on after "play" was asked twice.
hub.on("joined", (room) => room.name.startsWith("match.") && enter(room));

function enter(room) {
  if (room === match) return;
  match = room;
  before = state = undefined;
  want = null;
  $("start").hidden = true;
  $("says").textContent = "";
  document.activeElement.blur(); // the keys are the paddle's now
  room.on("message", ({ content }) => room === match && tick(content));
  room.on("lost", () => look(room)); // the room keeps but one state, and that is all we need
  // Away for too long, and the bot has won; or the server began anew, and knows of no match.
  room.on("left", () => room === match && over("The match is over: you were away for too long, or the server began anew."));
  requestAnimationFrame(draw);
}

// look is for who comes back when the match is over: no tick will say so.
async function look(room) {
  try {
    const { messages } = await room.history({ limit: 1 });
    if (room === match && messages.length) tick(messages[0].content);
  } catch { /* lost again, and on the way back we look again */ }
}

// tick takes what the server says 30 times a second, and answers it with our wish where that is a new one.
function tick(next) {
  before = state ?? next;
  state = next;
  came = performance.now();
  const score = `You ${next.score[0]} : ${next.score[1]} bot`;
  if ($("score").textContent !== score) $("score").textContent = score;
  if (next.winner) {
    match.leave().catch(() => {});
    over(next.winner === "player" ? "You win!" : "The bot wins.");
  } else if (want !== sent && hub.state === "online") {
    sent = want;
    hub.request("move", { to: want }).catch(() => { sent = undefined; });
  }
}

function over(why) {
  match = undefined;
  $("says").textContent = why;
  $("start").hidden = false;
  $("start").querySelector("button").focus();
}

// draw moves things between the last two states, at the screen's pace. A hidden page draws nothing, and the match goes on.
function draw() {
  if (!match) return;
  requestAnimationFrame(draw);
  if (!state) return;
  const part = Math.min(1, (performance.now() - came) * 30 / 1000);
  const now = (name) => before[name] + (state[name] - before[name]) * part;
  $("you").setAttribute("y", now("player") - half);
  $("bot").setAttribute("y", now("bot") - half);
  $("ball").setAttribute("cx", now("x"));
  $("ball").setAttribute("cy", now("y"));
}

// --- keys, fingers, mouse ---

const ends = { ArrowUp: 0, w: 0, W: 0, ArrowDown: height, s: height, S: height };
const held = [];

addEventListener("keydown", (e) => {
  if (!match || !(e.key in ends)) return;
  e.preventDefault(); // the page stays where it is
  if (!e.repeat) held.push(e.key);
  want = ends[held.at(-1)];
});
addEventListener("keyup", (e) => {
  if (!held.includes(e.key)) return;
  held.splice(held.indexOf(e.key), 1);
  want = held.length ? ends[held.at(-1)] : null;
});
addEventListener("blur", () => { held.length = 0; want = null; });

for (const kind of ["pointerdown", "pointermove"]) {
  $("court").addEventListener(kind, (e) => {
    const { top, height: tall } = $("court").getBoundingClientRect();
    want = Math.round((e.clientY - top) / tall * height);
  });
}

// --- a new match, and how the last ones ended ---

$("start").addEventListener("submit", async (e) => {
  e.preventDefault();
  $("says").textContent = "";
  try {
    await hub.request("play", { name: $("name").value });
  } catch (error) {
    $("says").textContent = `Not now: ${error.message}`;
  }
});

const results = hub.room("results");
const ended = new Map(); // by offset

function show({ offset, content }) {
  ended.set(offset, content);
  const newest = [...ended].sort(([a], [b]) => b - a).slice(0, 10);
  $("results").replaceChildren(...newest.map(([, { name, score, winner, away }]) => {
    const line = document.createElement("li");
    line.textContent = `${name} ${score[0]} : ${score[1]} bot · ` + (away ? `${name} stayed away` : winner === "player" ? `${name} wins` : "the bot wins");
    return line;
  }));
}

async function showLast() {
  try {
    (await results.history({ limit: 10 })).messages.forEach(show);
  } catch { /* the line was lost for long, or the hub is closed; what is new comes anyway */ }
}

results.on("message", show);
results.on("lost", () => {
  ended.clear(); // offsets begin anew with the server
  $("results").replaceChildren();
  showLast();
});
results.join({ timeout: Infinity }).then(showLast, () => {});
