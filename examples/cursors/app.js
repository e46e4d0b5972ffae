// The page of the shared board: first the cursors, then the shapes, then the frame around them. What comes from other
// clients is theirs to choose, so it is checked, and goes into the page as text alone.
import { Hubbub } from "./hubbub.js";

const $ = (id) => document.getElementById(id);
const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const anyOf = (list) => list[Math.floor(Math.random() * list.length)];
const COLORS = ["red", "orange", "olive", "green", "teal", "blue", "violet", "pink"];
const TICK = 1000 / 20; // ms between two positions that are sent
const SMOOTH = 60; // ms in which a cursor goes most of the way to where it is

const hub = new Hubbub("/ws");
const me = JSON.parse(sessionStorage.getItem("board") || "null") || {
  name: anyOf(["Quick", "Quiet", "Merry", "Brave", "Sunny"]) + " " + anyOf(["Otter", "Heron", "Badger", "Robin", "Hare"]),
  color: Math.floor(Math.random() * COLORS.length),
};
const cursors = hub.room("cursors", { data: me });
const board = hub.room("board");
const place = (v) => Math.round(Math.min(1, Math.max(0, v)) * 1e4) / 1e4; // on the board, which is 1 wide and 1 high

// --- the cursors: the room "cursors" conflates by key, so that who is slow gets the newest of each ---

const people = new Map(); // the others, by client id
const pointer = { at: null, fresh: false, timer: 0, unanswered: 0 }; // one's own

// point says where one points now; null: nowhere. It is sent at once, and then once a tick, always the newest.
function point(at) {
  pointer.at = at;
  pointer.fresh = true;
  tell();
}

function tell() {
  if (!pointer.fresh || pointer.timer || hub.state !== "online" || !cursors.joined || pointer.unanswered > 10) return;
  pointer.fresh = false;
  pointer.unanswered++;
  pointer.timer = setTimeout(() => {
    pointer.timer = 0;
    tell();
  }, TICK);
  cursors.publish(pointer.at, { key: hub.id, timeout: 5000 }).catch(() => {}).finally(() => {
    pointer.unanswered--;
    tell();
  });
}

function person(id) {
  let p = people.get(id);
  if (!p) {
    p = { el: $("cursor").content.firstElementChild.cloneNode(true), at: null };
    people.set(id, p);
  }
  return p;
}

cursors.on("message", ({ from, content: at }) => {
  const p = person(from);
  const shown = !!p.at;
  p.at = at && at.x >= 0 && at.x <= 1 && at.y >= 0 && at.y <= 1 ? { x: +at.x, y: +at.y } : null;
  if (!p.at) return p.el.remove();
  if (!shown) {
    Object.assign(p, p.at); // it appears where it is
    $("cursors").append(p.el);
  }
  animate();
});

// Who isn't in the list has left, and the cursor with them. Who is new hears where the others point.
cursors.on("members", (list) => {
  const here = new Set(list.map((m) => m.client_id));
  for (const [id, p] of people) {
    if (here.has(id) && id !== hub.id) continue;
    p.el.remove();
    people.delete(id);
  }
  $("people").replaceChildren(...list.map((m) => {
    const name = (typeof m.data?.name === "string" && m.data.name.trim().slice(0, 30)) || "Somebody";
    const color = "c" + (COLORS[m.data?.color] ? m.data.color : 0);
    if (m.client_id !== hub.id) {
      const p = person(m.client_id);
      p.el.className = "cursor " + color;
      p.el.querySelector("span").textContent = name;
      if (!p.met) pointer.fresh = !!pointer.at;
      p.met = true;
    }
    return make("li", color, name + (m.client_id === hub.id ? " (you)" : ""));
  }));
  tell();
});

// animate brings the cursors to where they are, a part of the way each frame, until all are there.
const still = matchMedia("(prefers-reduced-motion: reduce)");
let last = 0; // the time of the last frame; 0: nothing moves

function animate() {
  if (last) return;
  last = performance.now();
  requestAnimationFrame(frame);
}

function frame(now) {
  const part = still.matches ? 1 : 1 - Math.exp(-Math.max(0, now - last) / SMOOTH);
  const { clientWidth: width, clientHeight: height } = $("board");
  let moving = false;
  for (const p of people.values()) {
    if (!p.at) continue;
    for (const axis of ["x", "y"]) {
      const way = p.at[axis] - p[axis];
      p[axis] += Math.abs(way) < 0.0005 ? way : way * part;
      moving ||= p[axis] !== p.at[axis];
    }
    p.el.style.transform = `translate(${p.x * width}px, ${p.y * height}px)`;
  }
  last = moving ? now : 0;
  if (moving) requestAnimationFrame(frame);
}

// --- the shapes: what the server's board says, and above it what one wants oneself and isn't told of yet ---

const shapes = new Map(); // by id, as the server has them
const wanted = new Map(); // by id: {method, shape}, and until: where in the room its outcome stands
const saving = new Set(); // ids of which a request is under way
const drawn = new Map(); // the elements, by id
let run; // of the server: a restart loses the shapes
let at = {}; // the position in the room up to which `shapes` is
let waiting = []; // what the room tells while the whole board is on its way; else null
let syncs = 0;

// sync takes the whole board, and puts on top of it what the room has told meanwhile: at first, and whenever something
// may have been missed.
async function sync() {
  const turn = ++syncs;
  waiting = [];
  let whole;
  while (!whole) {
    try {
      whole = await hub.request("board");
    } catch (e) {
      if (!mayRepeat(e)) return;
      await pause(e.retryAfter || 200);
    }
    if (turn !== syncs) return; // more was missed, and a newer one looks after it
  }
  if (run && run !== whole.run) news(`The server began anew, with an empty board: ${shapes.size} shapes are gone.`);
  run = whole.run;
  const { epoch } = board.position || {};
  at = { epoch, offset: whole.epoch === epoch ? whole.offset : 0 }; // of another epoch: the room hasn't told anything since
  const known = [...shapes.keys(), ...wanted.keys()];
  shapes.clear();
  for (const s of whole.shapes) shapes.set(s.id, s);
  for (const [id, want] of wanted) if (isTold(want)) wanted.delete(id);
  for (const id of new Set([...known, ...shapes.keys()])) draw(id);
  const meanwhile = waiting;
  waiting = null;
  for (const { m, epoch } of meanwhile) apply(m, epoch);
}

board.on("message", (m) => {
  const { epoch } = board.position;
  if (waiting) waiting.push({ m, epoch });
  else apply(m, epoch);
});
board.on("lost", sync);
board.on("gap", sync);

// apply takes what became of one shape, unless the whole board had it already: an older state would bring back what is gone.
function apply({ offset, content: { id, shape } }, epoch) {
  if (epoch === at.epoch && offset <= at.offset) return;
  at = { epoch, offset };
  if (shape) shapes.set(id, shape);
  else shapes.delete(id);
  if (shape && wanted.get(id)?.method === "add") wanted.get(id).method = "move"; // it is added; asked again it must not come back
  for (const [other, want] of wanted) {
    if (!isTold(want)) continue;
    wanted.delete(other);
    draw(other);
  }
  draw(id);
}

// isTold says whether what was wanted, or what somebody made of it since, is in `shapes`.
const isTold = ({ until }) => until && (until.epoch !== at.epoch || until.offset <= at.offset);

// What asks for a state may be asked twice: the server sees to it that nothing is added or deleted again.
const mayRepeat = (e) => e.retry || e.code === "unknown";

function want(method, shape) {
  const before = wanted.get(shape.id);
  if (method === "move" && before?.method === "add" && !shapes.has(shape.id)) method = "add"; // nobody has told of it yet
  wanted.set(shape.id, { method, shape });
  draw(shape.id);
  save(shape.id);
}

// save asks for what is wanted of a shape, one request at a time: what changes meanwhile goes with the next one.
async function save(id) {
  if (saving.has(id)) return;
  saving.add(id);
  for (let want; (want = wanted.get(id)) && !want.until; ) {
    try {
      const until = await hub.request(want.method, want.shape);
      want.until = until;
      if (wanted.get(id) === want && !waiting && isTold(want)) wanted.delete(id);
      await pause(TICK);
    } catch (e) {
      if (mayRepeat(e)) {
        await pause(e.retryAfter || 200);
        continue;
      }
      if (wanted.get(id) === want) wanted.delete(id);
      news(`Not done: ${e.message}`);
    }
    draw(id);
  }
  saving.delete(id);
}

// seen is a shape as the page shows it; undefined where it is gone.
function seen(id) {
  const is = shapes.get(id);
  const want = wanted.get(id);
  if (!want) return is;
  if (want.method === "delete") return undefined;
  return is || want.method === "add" ? want.shape : undefined; // to move what is gone brings nothing back
}

function draw(id) {
  const shape = seen(id);
  let el = drawn.get(id);
  if (!shape) return el && undraw(id, el);
  if (!el) {
    el = make("button");
    el.type = "button";
    el.dataset.id = id;
    el.setAttribute("aria-describedby", "help");
    drawn.set(id, el);
    $("shapes").append(el);
  }
  el.className = `shape ${shape.kind} c${shape.color}`;
  el.classList.toggle("waits", hub.state !== "online" && wanted.has(id));
  el.classList.toggle("selected", id === selected);
  el.setAttribute("aria-label", `${COLORS[shape.color]} ${shape.kind}, ${Math.round(shape.x * 100)} % from the left, ${Math.round(shape.y * 100)} % from the top`);
  el.style.left = shape.x * 100 + "%";
  el.style.top = shape.y * 100 + "%";
}

function undraw(id, el) {
  const focused = el === document.activeElement;
  drawn.delete(id);
  el.remove();
  if (held?.id === id) held = null;
  if (selected === id) select(null);
  if (focused) ($("shapes").lastElementChild || $("board")).focus();
}

// --- the hand: pointer and keys ---

let held = null; // the shape that is dragged, and where it is held
let selected = null; // id of the shape that had the focus last

function select(id) {
  const before = selected;
  selected = id;
  $("delete").disabled = !id;
  for (const one of [before, id]) if (drawn.has(one)) draw(one);
}

const idOf = (e) => e.target.closest(".shape")?.dataset.id;

function placeOf(e) {
  const r = $("board").getBoundingClientRect();
  return { x: place((e.clientX - r.left) / r.width), y: place((e.clientY - r.top) / r.height) };
}

$("board").addEventListener("pointerdown", (e) => {
  const id = idOf(e);
  if (!id || e.button) return;
  const from = placeOf(e);
  const shape = seen(id);
  held = { id, dx: shape.x - from.x, dy: shape.y - from.y };
  e.target.setPointerCapture(e.pointerId);
  e.target.focus(); // which not every browser does by itself
});
$("board").addEventListener("pointermove", (e) => {
  const to = placeOf(e);
  point(to);
  if (held) want("move", { ...seen(held.id), x: place(to.x + held.dx), y: place(to.y + held.dy) });
});
for (const end of ["pointerup", "pointercancel"]) $("board").addEventListener(end, () => (held = null));
$("board").addEventListener("pointerleave", () => point(null));
$("board").addEventListener("focusin", (e) => idOf(e) && select(idOf(e)));
$("board").addEventListener("keydown", (e) => {
  const shape = seen(idOf(e));
  if (!shape) return;
  const step = e.shiftKey ? 0.1 : 0.01;
  const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[e.key] || [];
  if (dx !== undefined) {
    const to = { x: place(shape.x + dx), y: place(shape.y + dy) };
    want("move", { ...shape, ...to });
    point(to);
  } else if (e.key === "Delete" || e.key === "Backspace") {
    want("delete", shape);
  } else return;
  e.preventDefault();
});

$("delete").addEventListener("click", () => seen(selected) && want("delete", seen(selected)));
$("tools").addEventListener("click", (e) => {
  const { kind } = e.target.dataset;
  if (!kind) return;
  const id = crypto.getRandomValues(new Uint32Array(4)).join("-");
  want("add", { id, kind, color: me.color, x: place(0.3 + Math.random() * 0.4), y: place(0.3 + Math.random() * 0.4) });
  drawn.get(id).focus();
});

// --- the frame ---

function news(text) {
  $("news").append(make("li", "", text));
  while ($("news").childElementCount > 3) $("news").firstElementChild.remove();
}

// What others see of one is said with the join, so that to change it is to leave and join.
let renamed = Promise.resolve();
$("name").value = me.name;
$("name").addEventListener("change", () => {
  me.name = $("name").value.trim() || me.name;
  $("name").value = me.name;
  sessionStorage.setItem("board", JSON.stringify(me));
  renamed = renamed.then(() => cursors.leave().catch(() => {})).then(() => enter(cursors));
});

hub.on("state", (state, { delay, reason, refused }) => {
  $("state").dataset.state = state;
  $("state").textContent = {
    connecting: "connecting…",
    online: "online",
    waiting: refused ? "the server refuses this page: its log says why" : `away, back in ${Math.ceil(delay / 1000)} s`,
    closed: `closed: ${reason}`,
  }[state];
  for (const id of drawn.keys()) draw(id);
  pointer.fresh ||= !!pointer.at; // others may have come meanwhile
  tell();
});
sessionStorage.setItem("board", JSON.stringify(me));
new ResizeObserver(animate).observe($("board"));

// enter joins for good; before the first connection that may take longer than one try's patience.
async function enter(room) {
  for (;;) {
    try {
      return await room.join();
    } catch (e) {
      if (!e.retry) return news(`The room ${room.name} can't be joined: ${e.message}`);
    }
  }
}
enter(cursors);
enter(board).then(sync);
