import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { connect, failure, file, online, patience, proxy, random, serve, until } from "./helper.js";

// Against the built server. What is told apart from what is lost: each message has a number, and each is held against
// what was acknowledged.

const secret = "0123456789abcdef0123456789abcdef";
const long = "rooms:\n- match: '*'\n  presence: full\n  history: {messages: 100000, age: 10m, bytes: 64MiB}\n";
const run = promisify(execFile);
const hubbub = async (...args) => (await run(process.env.SERVER_BINARY, args)).stdout.trim();

test("every method", async (t) => {
  const s = await serve(t, "--hook-url", await answering(t), "--hook-events", "request", "--webhook-secret", hookSecret);
  const ann = connect(t, s.url), bob = connect(t, s.url);
  const room = ann.room("lobby", { data: { name: "Ann" } }), bobs = bob.room("lobby", { data: { name: "Bob" } });
  assert.equal(ann.room("lobby"), room);
  const got = [], lists = [], chats = [], direct = [];
  bobs.on("message", (m) => got.push(m));
  bobs.on("members", (list, count) => lists.push([list.map((m) => m.data.name).sort().join(), count]));
  bob.on("chat", (m) => chats.push(m));
  bob.on("direct", (m) => direct.push(m));
  const joined = await bobs.join();
  assert.ok(joined.epoch && joined.offset === 0);
  await room.join();
  await until("Bob sees Ann", () => lists.at(-1)?.join() === "Ann,Bob,2");
  const ack = await room.publish({ text: "hi" }, { key: "k" });
  await room.publish("once", { publishId: "p" });
  assert.equal((await room.publish("once", { publishId: "p" })).duplicate, true);
  await until("both come", () => got.length === 2);
  assert.deepEqual([got[0].content, got[0].key, got[0].from, got[0].offset], [{ text: "hi" }, "k", ann.id, ack.offset]);
  const page = await ann.room("lobby").history({ limit: 1 });
  assert.deepEqual([page.messages.map((m) => m.content), page.more], [["once"], true]);
  assert.equal((await room.history({ since: { epoch: ack.epoch, offset: ack.offset } })).messages.length, 1);
  assert.equal((await room.presence()).members.length, 2);
  await ann.chat("to all");
  await ann.send(bob.id, ["psst"]);
  await until("chat and direct", () => chats.length && direct.length);
  assert.deepEqual([chats[0].content, direct[0].content, direct[0].from], ["to all", ["psst"], ann.id]);
  assert.equal((await failure(ann.send(crypto.randomUUID(), 1))).code, "unknown_client");
  assert.deepEqual(await ann.request("double", 21), 42);
  assert.ok(Math.abs((await ann.ping()).time - Date.now()) < patience);
  await room.leave();
  await until("Bob sees her go", () => lists.at(-1)?.join() === "Bob,1");
  await bobs.publish("nobody hears");
  await room.join({ since: { epoch: ack.epoch, offset: ack.offset } }).then((j) => assert.equal(j.recovered, true));
  assert.equal((await failure(ann.room("\n").join())).code, "bad_room");
  assert.equal(ann.room("\n").joined, false);
});

const hookSecret = "whsec_" + Buffer.alloc(32, 7).toString("base64");

// answering is a backend that doubles numbers.
async function answering(t) {
  const http = await import("node:http");
  const l = http.createServer(async (req, res) => {
    let body = "";
    for await (const b of req) body += b;
    res.setHeader("Content-Type", "application/json");
    res.end(JSON.stringify({ content: JSON.parse(body).content * 2 }));
  });
  await new Promise((r) => l.listen(0, "127.0.0.1", r));
  t.after(() => { l.close(); l.closeAllConnections(); });
  return `http://127.0.0.1:${l.address().port}/`;
}

test("a thousand joined rooms come back together", async (t) => {
  const s = await serve(t, "--config", file("hubbub.yaml", long));
  const p = await proxy(t, s.port);
  const hub = connect(t, p.url);
  await online(hub);
  const rooms = Array.from({ length: 990 }, (_, i) => hub.room(`room ${i} ${"x".repeat(200)}`));
  const lost = [];
  for (const room of rooms) room.on("lost", (why) => lost.push(why));
  await Promise.all(rooms.map((room) => room.join()));
  const { id } = hub;
  p.cut();
  await until("away", () => hub.state === "waiting");
  const other = connect(t, s.url);
  for (const i of [0, 500, 989]) await other.room(rooms[i].name).publish(i);
  const got = [];
  for (const room of rooms) room.on("message", (m) => got.push(m.content));
  await until("what was missed", () => got.length === 3);
  assert.deepEqual([got.sort((a, b) => a - b), lost, hub.id === id], [[0, 500, 989], [], true]);
});

// Several who talk in a room, whose connections break within frames after bytes at random. All is published once and
// heard once, in the room's order.
test("cuts at random: nothing lost, nothing doubled", async (t) => {
  // Node's own WebSocket inflates later, and throws away what it has not inflated when the end comes. Who is behind by more
  // than a connection brings, and cut like that each time, gets nowhere; uncompressed it does.
  const flags = globalThis.WebSocket ? ["--compression", "off"] : [];
  const s = await serve(t, "--config", file("hubbub.yaml", long), ...flags);
  const next = random(20260);
  const p = await proxy(t, s.port, () => 200 + Math.floor(next() ** 3 * 40_000));
  const crowd = Array.from({ length: 4 }, () => connect(t, p.url, { minDelay: 5, maxDelay: 50 }));
  const watcher = connect(t, s.url);
  await watcher.room("r").join();
  const all = [];
  watcher.room("r").on("message", (m) => all.push(m));
  const faults = [], got = crowd.map(() => []), acks = new Map();
  for (const [i, hub] of crowd.entries()) {
    const room = hub.room("r");
    for (const event of ["lost", "gap", "left"]) room.on(event, (why) => faults.push([event, why]));
    room.on("message", (m) => got[i].push(m));
    await room.join();
  }
  const end = Date.now() + 20_000;
  await Promise.all(crowd.map(async (hub, i) => {
    for (let n = 0; Date.now() < end || p.cuts <= 50; n++) { // a busy machine takes longer to have as many
      const burst = [];
      for (let k = 0; k < 5; k++, n++) {
        const name = `${i}.${n}`;
        burst.push(hub.room("r").publish({ name, pad: "x".repeat(Math.floor(next() * 600)) }).then(
          (ack) => acks.set(name, ack.offset), (e) => faults.push([name, e.code, e.message])));
      }
      await Promise.all(burst);
      await new Promise((r) => setTimeout(r, next() * 60));
    }
  }));
  p.calm = true;
  await watcher.room("r").publish({ name: "end" });
  await until("all have heard the end", () => got.every((list) => list.at(-1)?.content.name === "end"));
  assert.deepEqual(faults.slice(0, 3), []);
  assert.ok(p.cuts > 50, `${p.cuts} cuts`);
  const names = all.map((m) => m.content.name);
  await until("the watcher has all", () => all.length >= acks.size);
  assert.deepEqual(all.map((m) => m.content.name).sort(), [...acks.keys()].sort());
  assert.ok(names.length > 100);
  for (const [i, list] of got.entries()) {
    const want = all.filter((m) => m.from !== crowd[i].id).map((m) => m.content.name);
    assert.deepEqual(list.slice(0, -1).map((m) => m.content.name), want, `client ${i}`);
    const mine = all.map((m) => m.content.name.split(".").map(Number)).filter(([by]) => by === i).map(([, n]) => n);
    assert.deepEqual(mine, [...mine].sort((a, b) => a - b), `the order of client ${i}`);
  }
  t.diagnostic(`${p.cuts} cuts, ${acks.size} messages, four sessions`);
});

for (const signal of ["SIGKILL", "SIGTERM"]) {
  test(`over a restart by ${signal}: typed while away arrives, in order and once, and what can't be proved is said`, async (t) => {
    const s = await serve(t);
    const ann = connect(t, s.url), bob = connect(t, s.url);
    const got = [], lost = [];
    bob.room("r").on("message", (m) => got.push(m.content));
    bob.room("r").on("lost", (why) => lost.push(why));
    await bob.room("r").join();
    await ann.room("r").join();
    let n = 0;
    const acked = [], unknown = [];
    const publish = () => {
      const mine = n++;
      return ann.room("r").publish(mine).then(() => acked.push(mine), (e) => unknown.push([mine, e.code, e.sent]));
    };
    for (let i = 0; i < 20; i++) await publish();
    const running = Array.from({ length: 20 }, publish); // on their way as it dies
    const stopped = s.stop(signal);
    await until("both are away", () => [ann, bob].every((hub) => hub.state !== "online"));
    await stopped;
    const away = Array.from({ length: 10 }, publish);
    await s.again();
    // Who of them is back first is open: what Ann says before Bob is in is what he is told of by `lost`.
    await Promise.all([online(bob), online(ann)]);
    await Promise.all([...running, ...away]);
    await publish();
    await until("the last one", () => got.at(-1) === n - 1 || lost.length);
    assert.deepEqual(lost, ["epoch"]);
    assert.deepEqual(got, [...new Set(got)].sort((a, b) => a - b), "doubled, or out of order");
    assert.deepEqual(unknown.filter(([m, code, sent]) => code !== "unknown" || !sent || m < 20 || m >= 40), []);
    // What was typed while away stands in the new log, once.
    const kept = (await bob.room("r").history({})).messages.map((m) => m.content);
    assert.deepEqual(kept.filter((m) => m >= 40), Array.from({ length: 11 }, (_, i) => 40 + i));
    assert.deepEqual(acked, [...acked].sort((a, b) => a - b));
    if (signal === "SIGTERM") assert.ok(bob.states.some(([state, d]) => state === "waiting" && d.code === 1001));
  });
}

test("the session is gone, the room is not: since brings what was missed", async (t) => {
  const s = await serve(t, "--config", file("hubbub.yaml", long), "--resume-window", "0s");
  const p = await proxy(t, s.port);
  const hub = connect(t, p.url), other = connect(t, s.url);
  const room = hub.room("r"), got = [], lost = [];
  room.on("message", (m) => got.push(m.content));
  room.on("lost", (why) => lost.push(why));
  await room.join();
  await other.room("r").join(); // so that the room, and its epoch, stay
  const { id } = hub;
  p.refuse = true;
  p.cut();
  await until("away", () => hub.state === "waiting");
  for (let i = 0; i < 50; i++) await other.room("r").publish(i);
  p.refuse = false;
  await until("all", () => got.length === 50);
  assert.deepEqual([got, lost, hub.id === id], [Array.from({ length: 50 }, (_, i) => i), [], false]);
});

test("a page of a room that is not there is where it begins", async (t) => {
  const s = await serve(t);
  const room = connect(t, s.url).room("r"), got = [];
  room.on("message", (m) => got.push(m.content));
  room.on("lost", (why) => got.push(why));
  const { epoch, offset } = await room.history();
  await connect(t, s.url).room("r").publish("first");
  assert.equal((await room.join({ since: { epoch, offset } })).recovered, true);
  await until("it comes", () => got.length > 0);
  assert.deepEqual(got, ["first"]);
});

test("a line that is dead, not cut", async (t) => {
  const s = await serve(t, "--ping-interval", "1s", "--pong-timeout", "1s");
  const p = await proxy(t, s.port);
  const hub = connect(t, p.url);
  await hub.room("r").join();
  const { id } = hub;
  p.deaf = true;
  await until("it is seen", () => hub.state !== "online");
  p.deaf = false;
  p.cut();
  await online(hub);
  assert.equal(hub.id, id);
});

const tokens = (t, ...flags) => {
  const config = file("hubbub.yaml", `jwt-key: ${secret}\n`);
  return { config, token: (ttl) => hubbub("token", "--config", config, "--user", "ann", "--expires", ttl) };
};

test("a token is refreshed before its end", async (t) => {
  const { config, token } = tokens();
  const s = await serve(t, "--config", config); // which waits for 10 s more, so that a busy machine is in time
  let made = 0;
  const hub = connect(t, s.url, { token: () => (made++, token("3s")) });
  await online(hub);
  const { id } = hub;
  assert.equal(hub.user, "ann");
  await until("it has refreshed twice", () => made >= 3);
  await hub.ping();
  assert.deepEqual([hub.states.map(([state]) => state), hub.id], [["connecting", "online"], id]);
});

test("a token that has ended: a new one is asked for; who has none, or a bad one, stays away", async (t) => {
  const { config, token } = tokens();
  const s = await serve(t, "--config", config, "--jwt-leeway", "0s");
  const stale = await token("1s");
  await new Promise((r) => setTimeout(r, 2500)); // until it has ended
  let asked = 0;
  const back = connect(t, s.url, { token: () => (asked++ ? token("1h") : stale) });
  await online(back);
  assert.ok(back.states.some(([state, d]) => state === "waiting" && d.code === 4401));
  for (const [options, code] of [[{}, 4401], [{ token: () => "x.y.z" }, 4503]]) {
    const hub = connect(t, s.url, options);
    await until("closed", () => hub.state === "closed");
    assert.equal(hub.states.at(-1)[1].code, code);
  }
});

test("a token's end closes, and the session goes on with the next one", async (t) => {
  const { config, token } = tokens();
  const s = await serve(t, "--config", config, "--jwt-leeway", "0s");
  let made = 0;
  const hub = connect(t, s.url, { token: () => (made++ % 2 ? new Promise(() => {}) : token(made > 2 ? "1h" : "2s")) }); // the refresh hangs
  await hub.room("r").join();
  const { id } = hub;
  await until("it is back", () => hub.states.some(([, d]) => d.code === 4401) && hub.state === "online");
  assert.equal(hub.id, id);
});

test("who is kicked stays away; who is taken out of a room is told", async (t) => {
  const key = "a-key-of-sixteen-bytes-or-more";
  const s = await serve(t, "--api-key", key);
  const call = (method, path) => fetch(s.http + "/api/v1" + path, { method, headers: { Authorization: "Bearer " + key } });
  const hub = connect(t, s.url), left = [], deleted = [];
  const room = hub.room("r");
  room.on("left", (why) => left.push(why));
  room.on("deleted", (what) => deleted.push(what));
  await room.join();
  const { offset } = await room.publish("taken back");
  assert.ok((await call("DELETE", `/rooms/r/history/${offset}`)).ok);
  await until("deleted", () => deleted.length);
  assert.equal(deleted[0].offset, offset);
  await run(process.env.SERVER_BINARY, ["kick", "client:" + hub.id, "--room", "r", "--url", s.http], { env: { ...process.env, HUBBUB_API_KEY: key } });
  await until("left", () => left.length);
  assert.deepEqual([left, room.joined], [["kicked"], false]);
  const asked = failure(until("no more", () => hub.ping().then(() => false)));
  assert.ok((await call("DELETE", "/clients/" + hub.id)).ok);
  assert.equal((await asked).code, "closed");
  assert.deepEqual([hub.state, hub.states.at(-1)[1].code], ["closed", 4500]);
});

test("a full server's Retry-After, and the queue that overflows meanwhile", async (t) => {
  const s = await serve(t, "--max-connections", "1");
  const first = connect(t, s.url);
  await online(first);
  const hub = connect(t, s.url, { queue: 2 });
  await until("it waits as long as the server says", () => hub.states.some(([state, d]) => state === "waiting" && d.delay >= 500));
  const waiting = [hub.chat(1), hub.room("r").publish(2)];
  assert.equal((await failure(hub.chat(3))).code, "queue_full");
  first.close();
  await Promise.all(waiting);
});

test("the origin is refused though the server is ready", async (t) => {
  const { default: WS } = await import("ws");
  const s = await serve(t);
  class Foreign extends WS { constructor(url, offers) { super(url, offers, { origin: "https://elsewhere.example" }); } }
  const hub = connect(t, s.url, { WebSocket: Foreign });
  await until("it says so", () => hub.states.some(([, d]) => d.refused));
});

// The program ends by itself: no timer, listener or connection is left over.
for (const flag of ["--experimental-websocket", "--no-experimental-websocket"]) {
  test(`a program ends after close(), ${flag}`, async (t) => {
    const s = await serve(t);
    const program = spawn(process.execPath, [flag, "--input-type=module", "-e", `
      import { Hubbub } from "./hubbub.js";
      import WS from "ws";
      const options = globalThis.WebSocket ? {} : { WebSocket: WS };
      const hub = new Hubbub("${s.url}", options), away = new Hubbub("ws://127.0.0.1:1/ws", options), never = new Hubbub("${s.url}", options);
      never.close();
      away.chat("x").catch((e) => console.log(e.code));
      await hub.room("r").join();
      hub.room("r").on("members", () => {});
      await hub.room("r").publish(1, { signal: new AbortController().signal });
      while (away.state !== "waiting") await new Promise((r) => setTimeout(r, 1));
      away.close();
      hub.close();
      console.log("closed", !!globalThis.WebSocket);
    `], { cwd: new URL("..", import.meta.url), stdio: ["ignore", "pipe", "pipe"] });
    let out = "";
    for (const from of [program.stdout, program.stderr]) from.on("data", (b) => { out += b; });
    const code = await new Promise((r) => program.on("exit", r));
    assert.equal(code, 0, out);
    assert.match(out, new RegExp(`closed ${flag === "--experimental-websocket"}`));
    assert.match(out, /^closed$/m);
  });
}
