import { NativeAbortController, NativeSocket } from "./native.js"; // first: it takes away what isn't there
import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, failure, file, online, proxy, serve, until } from "./helper.js";

// In React Native, as far as that can be had without a phone.

const config = () => file("hubbub.yaml", "rooms:\n- match: '*'\n  history: {messages: 100000, age: 10m, bytes: 64MiB}\n");
const phone = (t, url, options) => connect(t, url, { WebSocket: NativeSocket, ...options });

/** A hub in the room "r" that keeps what it hears there. */
async function member(t, url, options) {
  const hub = phone(t, url, options);
  Object.assign(hub, { got: [], told: [] });
  const room = hub.room("r");
  room.on("message", (m) => hub.got.push(m.content));
  for (const event of ["lost", "gap", "left"]) room.on(event, (why) => hub.told.push([event, why]));
  await room.join();
  return hub;
}

const count = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

test("over cuts: nothing lost, nothing doubled, and what is said while away goes out", async (t) => {
  const s = await serve(t, "--config", config());
  const p = await proxy(t, s.port);
  const ann = await member(t, p.url), bob = await member(t, s.url);
  const { id } = ann;
  for (let n = 0; n < 50; n += 10) {
    const said = count(n + 1, n + 5).map((i) => ann.room("r").publish(i)); // on their way as the line is cut
    p.refuse = true;
    p.cut();
    await until("away", () => ann.state !== "online");
    said.push(...count(n + 6, n + 10).map((i) => ann.room("r").publish(i)));
    for (const i of count(n + 101, n + 110)) await bob.room("r").publish(i);
    p.refuse = false;
    await Promise.all(said);
  }
  await until("all", () => bob.got.length === 50 && ann.got.length === 50);
  assert.deepEqual([bob.got, ann.got, ann.told, bob.told, ann.id === id], [count(1, 50), count(101, 150), [], [], true]);
});

test("over a restart", async (t) => {
  const s = await serve(t);
  const ann = await member(t, s.url);
  await s.stop();
  await until("away", () => ann.state !== "online");
  const said = [1, 2, 3].map((i) => ann.room("r").publish(i));
  await s.again();
  await Promise.all(said);
  assert.deepEqual(ann.told, [["lost", "epoch"]]);
  assert.ok(ann.states.some(([state, d]) => state === "waiting" && d.code === 1001));
});

test("in the pocket: a line that died meanwhile is found out by check()", async (t) => {
  const s = await serve(t, "--config", config());
  const p = await proxy(t, s.port);
  const ann = await member(t, p.url), bob = await member(t, s.url);
  p.deaf = true;
  for (const i of count(1, 10)) await bob.room("r").publish(i);
  ann.check();
  await until("it is seen", () => ann.state !== "online");
  p.deaf = false;
  p.cut();
  await until("all", () => ann.got.length === 10);
  assert.deepEqual([ann.got, ann.told], [count(1, 10), []]);
});

test("a server that isn't there, and one that is full", async (t) => {
  const s = await serve(t, "--max-connections", "1");
  const nobody = phone(t, "ws://127.0.0.1:1/ws");
  await until("it waits, and says why", () => nobody.states.some(([state, d]) => state === "waiting" && /ECONNREFUSED/.test(d.reason)));
  const first = phone(t, s.url);
  await online(first);
  const second = phone(t, s.url);
  await until("it waits as long as the server says", () => second.states.some(([state, d]) => state === "waiting" && d.delay >= 500));
  first.close();
  await online(second);
});

test("a signal that has no reason takes a call back all the same", async (t) => {
  const s = await serve(t);
  const hub = phone(t, s.url);
  const early = new NativeAbortController();
  early.abort();
  assert.equal((await failure(hub.chat("x", { signal: early.signal }))).code, "aborted");
  const late = new NativeAbortController();
  const asked = failure(hub.chat("x", { signal: late.signal }));
  late.abort();
  assert.equal((await asked).code, "aborted");
  assert.equal(late.signal.heard.size, 0);
});

test("nothing is left over after close()", async (t) => {
  const s = await serve(t);
  const hub = await member(t, s.url);
  assert.ok(NativeSocket.open > 0);
  hub.close();
  await until("the sockets have ended", () => NativeSocket.open === 0);
  assert.deepEqual([hub._timers.size, hub._pending.size, hub._listening.signal.aborted], [0, 0, true]);
});
