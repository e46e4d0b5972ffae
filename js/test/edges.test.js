import assert from "node:assert/strict";
import { test } from "node:test";
import { fake, heard, inRoom, say, settle } from "./fake.js";
import { failure } from "./helper.js";

// What a program does at the worst moment, and what a server says at it.

const joined = (s, m) => s.say({ msg_type: "joined", id: s.last("join_room").id, ...m });
const online = async (f, welcome) => {
  const s = await f.socket(0);
  s.open(welcome);
  await settle();
  return s;
};

test("a hub that is closed by a listener stays closed, whatever it was about to do", async (t) => {
  const timers = new Set(), real = { setTimeout, clearTimeout };
  globalThis.setTimeout = (fn, ms) => { const timer = real.setTimeout(() => { timers.delete(timer); fn(); }, ms); timers.add(timer); return timer; };
  globalThis.clearTimeout = (timer) => { timers.delete(timer); real.clearTimeout(timer); };
  t.after(() => Object.assign(globalThis, real));
  let fetched = 0, asked = 0;
  for (const when of ["connecting", "waiting", "online"]) {
    const { hub, sockets, socket } = fake(t, { fetch: async () => fetched++, token: () => "t" + asked++ });
    const states = heard(hub, "state");
    hub.on("state", (s) => s === when && hub.close());
    if (when === "connecting") await settle();
    else if (when === "waiting") (await socket(0)).end(1006);
    else (await socket(0)).open();
    await settle();
    assert.deepEqual([hub.state, states.at(-1)[0], timers.size, fetched], ["closed", "closed", 0, 0], when);
    if (when === "connecting") assert.deepEqual([sockets.length, asked], [0, 0]);
  }
});

test("a server that lies behind a close() in a listener brings no hub back to life", async (t) => {
  const f = fake(t);
  const s = await online(f, { resume_token: "T" });
  const one = f.hub.room("one"), two = f.hub.room("two");
  for (const room of [one, two]) await inRoom(s, room, { epoch: "e", offset: 1 });
  one.on("lost", () => f.hub.close());
  s.end(1006);
  const s2 = await f.socket(1);
  s2.open({ resumed: true });
  s2.say({ msg_type: "resumed", id: s2.sent[0].id, rooms: { one: { reason: "epoch" }, two: { epoch: "e", offset: -1 } } });
  await settle();
  assert.equal(f.hub.state, "closed");
});

test("a join that is taken back takes no other one with it", async (t) => {
  const f = fake(t);
  const s = await online(f);
  const room = f.hub.room("r"), stop = new AbortController();
  const first = failure(room.join({ signal: stop.signal })), second = room.join();
  stop.abort(new Error("enough"));
  await first;
  assert.equal(s.last("leave_room"), undefined);
  joined(s, { room: "r", epoch: "e", offset: 1 });
  await second;
  const got = heard(room, "message");
  say(s, "r", 2);
  assert.equal(got.length, 1);
  const last = failure(f.hub.room("q").join({ timeout: 1 }));
  await last;
  assert.equal(s.last("leave_room").room, "q");
});

test("a join behind a leave asks the server, also when an older join has just been answered", async (t) => {
  const f = fake(t);
  const s = await online(f);
  const room = f.hub.room("r");
  const first = room.join(), leave = room.leave();
  joined(s, { room: "r", epoch: "e", offset: 1 });
  await first;
  const third = room.join();
  assert.equal(s.all("join_room").length, 2);
  s.say({ msg_type: "left", room: "r", id: s.last("leave_room").id });
  joined(s, { room: "r", epoch: "e", offset: 4 });
  await Promise.all([leave, third]);
  assert.deepEqual([room.joined, room.position], [true, { epoch: "e", offset: 4 }]);
});

for (const [what, m] of [["a message", { msg_type: "room_message", from: "x", content: 8, time: 1, offset: 8 }], ["a gap", { msg_type: "gap", reason: "drop-oldest", count: 1, to_offset: 8 }],
  ["word of a new epoch", { msg_type: "joined", epoch: "f", offset: 8 }]]) {
  test(`on the way back ${what} moves no position: what lies before it would be lost in silence`, async (t) => {
    const f = fake(t);
    const s = await online(f);
    const inbox = f.hub.room("inbox"), got = heard(inbox, "message"), lost = heard(inbox, "lost");
    s.say({ msg_type: "joined", room: "inbox", epoch: "e", offset: 5 }); // its token names it
    s.end(1006);
    const s2 = await f.socket(1);
    s2.open({ client_id: "c2" });
    s2.say({ msg_type: "joined", room: "inbox", epoch: "e", offset: 7 });
    s2.say({ room: "inbox", ...m });
    s2.end(1006); // before the join is answered
    const s3 = await f.socket(2);
    s3.open({ client_id: "c3" });
    assert.deepEqual(s3.last("join_room").since, { epoch: "e", offset: 5 });
    joined(s3, { room: "inbox", epoch: "e", offset: 8, recovered: true });
    for (const offset of [6, 7, 8]) say(s3, "inbox", offset);
    assert.deepEqual([got.map((m) => m.offset), lost], [[6, 7, 8], []]);
  });
}

test("an answer to a join on the way back that is too late loses nothing in silence", async (t) => {
  const f = fake(t, { timeout: 30 });
  const s = await online(f);
  const room = f.hub.room("r"), lost = heard(room, "lost");
  await inRoom(s, room, { epoch: "e", offset: 5 });
  s.end(1006);
  const s2 = await f.socket(1);
  s2.open({ client_id: "c2" });
  while (f.hub.state !== "online") await settle();
  joined(s2, { room: "r", epoch: "e", offset: 99, recovered: false, reason: "expired" });
  say(s2, "r", 100);
  while (s2.all("join_room").length < 2) await new Promise((r) => setTimeout(r, 10));
  assert.deepEqual(s2.last("join_room").since, { epoch: "e", offset: 5 });
  joined(s2, { room: "r", epoch: "e", offset: 100, recovered: false, reason: "expired" });
  assert.deepEqual([lost, room.position.offset], [["expired"], 100]);
});

test("who leaves and comes again isn't joined a second time from where it was: lost would be told of nothing", async (t) => {
  const f = fake(t);
  const s = await online(f, { resume_token: "T" });
  const room = f.hub.room("r"), lost = heard(room, "lost"), got = heard(room, "message");
  await inRoom(s, room, { epoch: "e", offset: 5 });
  s.end(1006);
  const s2 = await f.socket(1);
  s2.open({ resumed: true });
  s2.say({ msg_type: "resumed", id: s2.sent[0].id, rooms: { r: { reason: "internal", retry: true } } });
  await settle();
  const left = room.leave(), back = room.join();
  s2.say({ msg_type: "left", room: "r", id: s2.last("leave_room").id });
  joined(s2, { room: "r", epoch: "e", offset: 9 });
  await Promise.all([left, back]);
  say(s2, "r", 10);
  await new Promise((r) => setTimeout(r, 1600)); // it was to be tried again after 1.5 s at most
  assert.deepEqual([s2.all("join_room").length, lost, got.map((m) => m.offset)], [1, [], [10]]);
});

test("a publish that is sent again and then refused may have gone through", async (t) => {
  const f = fake(t);
  const s = await online(f, { resume_token: "T" });
  const room = f.hub.room("r");
  const refused = failure(room.publish(1)), large = failure(room.publish("x".repeat(1000))), fresh = room.publish(2);
  s.end(1006);
  const s2 = await f.socket(1);
  s2.open({ resumed: true, max_message_bytes: 1000 });
  s2.say({ msg_type: "resumed", id: s2.sent[0].id, rooms: {} });
  await settle();
  const [one, two] = s2.all("room_message");
  s2.say({ msg_type: "error", code: "rate_limited", message: "too many", retry: true, id: one.id });
  s2.say({ msg_type: "ack", id: two.id, duplicate: true });
  await fresh;
  for (const e of [await refused, await large]) assert.deepEqual([e.code, e.retry, e.sent], ["unknown", false, true]);
  const first = failure(room.publish(3));
  s2.say({ msg_type: "error", code: "rate_limited", message: "too many", retry: true, id: s2.last("room_message").id });
  assert.equal((await first).code, "rate_limited");
});

test("a clock that is set back makes no publish young again", async (t) => {
  const f = fake(t);
  const s = await online(f, { resume_token: "T" });
  const sent = failure(f.hub.room("r").publish(1));
  s.end(1006);
  const now = Date.now;
  Date.now = () => now() - 36e5;
  t.after(() => { Date.now = now; });
  const s2 = await f.socket(1);
  s2.open({ resumed: true });
  s2.say({ msg_type: "resumed", id: s2.sent[0].id, rooms: {} });
  assert.equal((await sent).code, "unknown");
  assert.equal(s2.all("room_message").length, 0);
});

test("a listener that another one takes off hears nothing any more", async (t) => {
  const f = fake(t);
  const s = await online(f);
  const heard = [];
  f.hub.on("chat", () => off());
  const off = f.hub.on("chat", () => heard.push(1));
  s.say({ msg_type: "chat", from: "x", content: 1, time: 1 });
  assert.deepEqual(heard, []);
});

test("a list of members that comes behind the end of the membership is none", async (t) => {
  const f = fake(t);
  const s = await online(f);
  const room = f.hub.room("r"), lists = heard(room, "members");
  await inRoom(s, room, {});
  s.say({ msg_type: "left", room: "r", reason: "kicked" });
  s.say({ msg_type: "presence", room: "r", id: s.last("presence").id, count: 1, members: [{ client_id: "a" }] });
  assert.deepEqual([lists, room.members], [[], []]);
});

test("check() again and again doesn't put off the end of a dead line", async (t) => {
  const f = fake(t);
  const s = await online(f, { pong_timeout_ms: 50 });
  const often = setInterval(() => f.hub.check(), 5);
  t.after(() => clearInterval(often));
  await f.socket(1);
  assert.equal(s.closed, 4002);
});

test("a token that comes too late takes no newer one's place", async (t) => {
  const late = [];
  const f = fake(t, { timeout: 40, token: () => new Promise((r) => late.push(r)) });
  while (late.length < 2) await settle();
  late[1]("new");
  const s = await f.socket(0);
  late[0]("old");
  await settle();
  s.end(1006);
  assert.deepEqual((await f.socket(1)).offers, ["hubbub", "token.new"]);
});

test("a callback that fails without a word, or gives the same token again, is not asked all the time", async (t) => {
  const faults = [];
  const note = (e) => faults.push(e);
  process.on("unhandledRejection", note);
  t.after(() => process.off("unhandledRejection", note));
  let fails = false, asked = 0;
  const f = fake(t, { token: () => (asked++, fails ? Promise.reject() : "t") });
  const s = await online(f, { expires_at: 1000 });
  s.say({ msg_type: "pong", time: 1000 }); // it ends now
  while (!s.last("refresh")) await settle();
  for (let i = 0; i < 5; i++) { // and a server that takes it for some seconds more
    s.say({ msg_type: "refreshed", id: s.last("refresh").id, expires_at: 1000 });
    await settle();
    s.say({ msg_type: "pong", time: 1001 });
    await new Promise((r) => setTimeout(r, 5));
  }
  assert.equal(s.all("refresh").length, 1);
  fails = true;
  const g = fake(t, { token: () => (asked++ < 100 ? Promise.reject() : "t") });
  asked = 100;
  const s2 = await online(g, { expires_at: 1000 });
  asked = 0;
  s2.say({ msg_type: "pong", time: 1000 });
  while (!asked) await new Promise((r) => setTimeout(r, 1));
  await settle();
  assert.deepEqual(faults, []);
});

test("a resume token of any letters is carried as it is", async (t) => {
  const f = fake(t);
  const s = await online(f, { resume_token: "a&b#c +" });
  s.end(1006);
  assert.equal(new URL((await f.socket(1)).url).searchParams.get("resume"), "a&b#c +");
});
