// Does for the JavaScript client what client/driver_test.go does for the Go one: lines of JSON come in, commands with the
// number of their run, and what the client shows goes out. internal/faulty starts it. When its input ends nothing may be
// left over: no timer, no connection, no listener on what a page would have.
import readline from "node:readline";
import WS from "ws";
import { Hubbub } from "../hubbub.js";

const socket = process.argv.includes("ws") ? WS : globalThis.WebSocket;
const runs = new Map();

// What a page has, so that its listeners can be counted.
let listeners = 0;
const target = new EventTarget();
globalThis.addEventListener = (...what) => {
  listeners++;
  what[2].signal.addEventListener("abort", () => listeners--); // which takes them off
  target.addEventListener(...what);
};

const milliseconds = { min_delay_ms: "minDelay", max_delay_ms: "maxDelay", timeout_ms: "timeout", queue: "queue" };

function make(run, { url, options: { tokens, ...given } }) {
  const report = (r) => process.stdout.write(JSON.stringify({ run, ...r }) + "\n");
  const options = { WebSocket: socket };
  for (const [name, value] of Object.entries(given)) options[milliseconds[name]] = value;
  let asked = 0;
  if (tokens) options.token = async () => tokens[Math.min(asked++, tokens.length - 1)];
  const hub = new Hubbub(url, options), own = new Set(), rooms = new Set();
  hub.on("state", (state, d) => report({ state, code: d.code, reason: d.reason }));
  for (const kind of ["chat", "direct"]) hub.on(kind, (m) => report({ [kind]: { from: m.from, content: m.content } }));
  hub.on("gap", (g) => report({ gap: g }));
  hub.on("joined", (room) => {
    if (own.has(room.name)) return;
    report({ joined: room.name });
    listen(room.name);
  });

  // Has all that comes of a room reported.
  function listen(name) {
    const room = hub.room(name);
    if (rooms.has(name)) return room;
    rooms.add(name);
    room.on("message", (m) => report({ room: name, message: { from: m.from, content: m.content, offset: m.offset, epoch: m.offset && room.position?.epoch } }));
    room.on("lost", (lost) => report({ room: name, lost, at: room.position }));
    room.on("gap", (gap) => report({ room: name, gap }));
    room.on("deleted", (deleted) => report({ room: name, deleted }));
    room.on("left", (left) => report({ room: name, left }));
    return room;
  }

  const calls = {
    join: ({ room, data, since, o }) => { own.add(room); return hub.room(room, { data }).join({ since, ...o }); },
    leave: ({ room, o }) => hub.room(room).leave(o),
    publish: ({ room, content, key, publish_id, o }) => hub.room(room).publish(content, { key, publishId: publish_id, ...o }),
    history: ({ room, limit, o }) => hub.room(room).history({ limit, ...o }).then((p) => ({ contents: p.messages.map((m) => m.content), more: p.more })),
    presence: ({ room, o }) => hub.room(room).presence(o),
    chat: ({ content, o }) => hub.chat(content, o),
    send: ({ to, content, o }) => hub.send(to, content, o),
    request: ({ method, content, o }) => hub.request(method, content, o).then((content) => ({ content })),
  };
  return (c) => {
    if (c.room) listen(c.room);
    switch (c.call) {
      case "close":
        return hub.close();
      case "end":
        hub.close();
        runs.delete(run);
        return setImmediate(() => report({ ended: true })); // after what is promised
      case "members":
        return hub.room(c.room).on("members", (list, count) => report({
          room: c.room + " members", count, members: list.map((m) => m.client_id + (m.data === undefined ? "" : JSON.stringify(m.data))).sort(),
        }));
    }
    calls[c.call]({ ...c, o: c.timeout_ms && { timeout: c.timeout_ms } }).then(
      (ok) => report({ call: c.as, ok }),
      (e) => report({ call: c.as, error: e.code || "" + e, retry: e.retry, retry_after_ms: e.retryAfter }));
  };
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const c = JSON.parse(line);
  if (c.call === "new") runs.set(c.run, make(c.run, c));
  else runs.get(c.run)(c);
}

// With the input gone the process ends by itself, unless a timer or a connection holds it.
if (listeners || runs.size) {
  console.error(`${listeners} listeners and ${runs.size} clients are left over`);
  process.exitCode = 1;
}
const held = setTimeout(() => {
  console.error("what is left over:", process.getActiveResourcesInfo());
  process.exit(1);
}, 20_000);
held.unref();
