import assert from "node:assert/strict";
import { test } from "node:test";
import { Hubbub, HubbubError } from "../hubbub.js";
import { fake, heard, inRoom, say, settle } from "./fake.js";
import { failure } from "./helper.js";

test("answers find their questions: out of order, twice, late, and those nobody asked for", async (t) => {
  const { hub, socket } = fake(t);
  const s = await socket(0);
  s.open();
  await settle();
  const one = hub.ping(), two = hub.ping(), three = hub.ping({ timeout: 1 });
  const [a, b, c] = s.all("ping");
  assert.equal((await failure(three)).code, "timeout");
  s.say({ msg_type: "pong", time: 2, id: b.id });
  s.say({ msg_type: "pong", time: 22, id: b.id });
  s.say({ msg_type: "pong", time: 3, id: c.id });
  s.say({ msg_type: "pong", time: 1, id: a.id });
  s.say({ msg_type: "pong", time: 9, id: 4711 });
  assert.deepEqual([(await one).time, (await two).time], [1, 2]);
});

test("an unknown kind is passed over, and what is no message ends the connection", async (t) => {
  const { hub, socket } = fake(t);
  const s = await socket(0);
  const other = heard(hub, "other");
  s.open();
  await settle();
  s.say('{"msg_type":"room_message","room":"nowhere"}');
  s.say({ msg_type: "welcome", client_id: "another" });
  s.say({ msg_type: "news", x: 1 });
  assert.equal(hub.id, "c1");
  assert.deepEqual(other.map((m) => m.msg_type), ["news"]);
  for (const [i, data] of ["", "{", "null", "7", "[]", '"x"', new ArrayBuffer(3)].entries()) {
    const s = await socket(i);
    if (i) s.open();
    s.onmessage({ data });
    assert.deepEqual([hub.state, s.closed], ["waiting", 4002], `${data}`);
  }
});

test("the position moves with messages, gaps and deletions up to a place, and with nothing else", async (t) => {
  const { hub, socket } = fake(t);
  const s = await socket(0);
  s.open();
  await settle();
  const room = hub.room("r");
  const got = heard(room, "message"), gaps = heard(room, "gap"), deleted = heard(room, "deleted");
  await inRoom(s, room, { epoch: "e", offset: 5 });
  say(s, "r", 7);
  say(s, "r", 7);
  say(s, "r", 6);
  const ack = room.publish("mine");
  s.say({ msg_type: "ack", id: s.last("room_message").id, epoch: "e", offset: 20 });
  assert.deepEqual([(await ack).offset, room.position], [20, { epoch: "e", offset: 7 }]);
  s.say({ msg_type: "gap", room: "r", count: 2, reason: "history", from_offset: 8, to_offset: 9 });
  s.say({ msg_type: "deleted", room: "r", offset: 3 });
  assert.equal(room.position.offset, 9);
  s.say({ msg_type: "deleted", room: "r", to_offset: 10 });
  say(s, "r", 12);
  assert.deepEqual([got.map((m) => m.content), gaps.length, deleted.length, room.position.offset], [[7, 12], 1, 2, 12]);
  s.say({ msg_type: "gap", room: "r", reason: "epoch", epoch: "e2", to_offset: 3 });
  say(s, "r", 4);
  assert.deepEqual(room.position, { epoch: "e2", offset: 4 });
});

test("a session is resumed first of all, with the positions; then what waited, in order", async (t) => {
  const { hub, socket } = fake(t);
  const s = await socket(0);
  s.open({ resume_token: "T1", resumed: false });
  await settle();
  const room = hub.room("__proto__"), scratch = hub.room("scratch");
  const got = heard(room, "message"), lost = heard(scratch, "lost");
  await inRoom(s, room, { epoch: "e", offset: 5 });
  await inRoom(s, scratch, {});
  const first = room.publish(1); // sent, and never answered
  s.end(1006);
  const second = room.publish(2);
  const s2 = await socket(1);
  assert.match(s2.url, /\?errors=close&resume=T1$/);
  s2.open({ resume_token: "T2", resumed: true });
  const resume = s2.sent[0];
  assert.equal(JSON.stringify(resume.rooms), '{"__proto__":{"epoch":"e","offset":5},"scratch":null}');
  await settle();
  assert.equal(s2.sent.length, 1); // until it is answered
  s2.say(`{"msg_type":"resumed","id":${resume.id},"rooms":{"__proto__":{"epoch":"e","offset":6,"recovered":true},"scratch":{"recovered":false,"reason":"no_history"}}}`);
  say(s2, "__proto__", 6);
  await settle();
  const again = s2.all("room_message");
  assert.deepEqual(again.map((m) => m.content), [1, 2]);
  assert.equal(again[0].publish_id, s.last("room_message").publish_id);
  s2.say({ msg_type: "ack", id: again[1].id });
  s2.say({ msg_type: "ack", id: again[0].id, duplicate: true });
  assert.equal((await first).duplicate, true);
  await second;
  assert.deepEqual([got.length, lost], [1, ["no_history"]]);
});

test("2500 rooms are resumed in pages that the server takes", async (t) => {
  const { hub, socket } = fake(t);
  const s = await socket(0);
  s.open({ resume_token: "T1" });
  await settle();
  for (let i = 0; i < 2500; i++) s.say({ msg_type: "joined", room: "room " + i, epoch: "e", offset: i });
  s.end(1006);
  const s2 = await socket(1);
  s2.open({ resume_token: "T2", resumed: true, max_message_bytes: 1 << 20 });
  assert.deepEqual(s2.sent.map((m) => [Object.keys(m.rooms).length, m.last]), [[1000, false], [1000, false], [500, undefined]]);
  s2.end(1006);
  const s3 = await socket(2);
  s3.open({ resume_token: "T3", resumed: true, max_message_bytes: 4096 });
  assert.ok(s3.sent.every((m, i) => JSON.stringify(m).length <= 4096 && m.last === (i < s3.sent.length - 1 ? false : undefined)));
  assert.equal(s3.sent.reduce((n, m) => n + Object.keys(m.rooms).length, 0), 2500);
  assert.equal(hub.room("room 7").position.offset, 7);
});

test("where the session is gone, rooms are joined with since and data, and each says what can't be proved", async (t) => {
  const { hub, socket } = fake(t);
  const s = await socket(0);
  s.open({ resume_token: "T1" });
  await settle();
  const rooms = ["kept", "new epoch", "forbidden", "busy"].map((name) => hub.room(name, { data: { name } }));
  for (const r of rooms) await inRoom(s, r, { epoch: "e", offset: 5 });
  const lost = rooms.map((r) => heard(r, "lost")), left = rooms.map((r) => heard(r, "left"));
  const got = heard(rooms[0], "message");
  s.end(4002);
  const s2 = await socket(1);
  s2.open({ client_id: "c2", resume_token: "T2", resumed: false });
  const joins = s2.all("join_room");
  assert.deepEqual(joins.map((m) => [m.room, m.since, m.data]), rooms.map((r) => [r.name, { epoch: "e", offset: 5 }, { name: r.name }]));
  s2.say({ msg_type: "joined", room: "kept", id: joins[0].id, epoch: "e", offset: 8, recovered: true });
  for (const n of [6, 7, 8]) say(s2, "kept", n);
  s2.say({ msg_type: "joined", room: "new epoch", id: joins[1].id, epoch: "f", offset: 1, recovered: false, reason: "epoch" });
  s2.say({ msg_type: "error", code: "forbidden", message: "no", retry: false, id: joins[2].id });
  s2.say({ msg_type: "error", code: "rate_limited", message: "later", retry: true, retry_after_ms: 1, id: joins[3].id });
  while (s2.all("join_room").length < 5) await settle();
  const again = s2.last("join_room");
  assert.deepEqual([again.room, again.since], ["busy", { epoch: "e", offset: 5 }]);
  s2.say({ msg_type: "joined", room: "busy", id: again.id, epoch: "e", offset: 5, recovered: true });
  await settle();
  assert.deepEqual(lost, [[], ["epoch"], [], []]);
  assert.deepEqual(left, [[], [], ["forbidden"], []]);
  assert.deepEqual(got.map((m) => m.content), [6, 7, 8]);
  assert.deepEqual(rooms.map((r) => r.position), [{ epoch: "e", offset: 8 }, { epoch: "f", offset: 1 }, null, { epoch: "e", offset: 5 }]);
});

for (const [who, user, epoch, again] of [["without a name", undefined, "e", false], ["with one", "ann", "e", true], ["with one, and a room that began anew", "ann", "f", false]]) {
  test(`a publish that got no answer, and the session is gone: ${who}`, async (t) => {
    const { hub, socket } = fake(t);
    const s = await socket(0);
    s.open({ resume_token: "T1", user });
    await settle();
    const room = hub.room("r");
    await inRoom(s, room, { epoch: "e", offset: 5 });
    const sent = room.publish("sent"), chat = failure(hub.chat("sent too"));
    s.end(1006);
    const unsent = room.publish("unsent");
    assert.deepEqual([(await chat).code, (await chat).sent], ["unknown", true]);
    if (!again) sent.catch(() => {});
    // One that breaks before all is settled, and is resumed, changes nothing.
    (await socket(1)).open({ client_id: "c2", resume_token: "T2", resumed: false, user });
    (await socket(1)).end(1006);
    const s3 = await socket(2);
    s3.open({ client_id: "c2", resume_token: "T3", resumed: true, user });
    s3.say({ msg_type: "resumed", id: s3.sent[0].id, rooms: { r: { epoch, offset: 5, recovered: epoch === "e", reason: "epoch" } } });
    await settle();
    assert.deepEqual(s3.all("room_message").map((m) => m.content), again ? ["sent", "unsent"] : ["unsent"]);
    for (const m of s3.all("room_message")) s3.say({ msg_type: "ack", id: m.id });
    await unsent;
    if (again) await sent;
    else assert.equal((await failure(sent)).code, "unknown");
  });
}

test("rooms that the server puts the client into: one keeps its older position for the way back", async (t) => {
  const { hub, socket } = fake(t);
  const s = await socket(0);
  const joined = heard(hub, "joined");
  s.open({ resume_token: "T1" });
  s.say({ msg_type: "joined", room: "inbox", epoch: "e", offset: 5 });
  const inbox = hub.room("inbox"), got = heard(inbox, "message");
  assert.deepEqual([joined, inbox.position], [[inbox], { epoch: "e", offset: 5 }]);
  s.end(1006);
  const s2 = await socket(1);
  s2.open({ client_id: "c2", resumed: false });
  s2.say({ msg_type: "joined", room: "inbox", epoch: "e", offset: 7 });
  const join = s2.last("join_room");
  assert.equal(join.since.offset, 5);
  s2.say({ msg_type: "joined", room: "inbox", id: join.id, epoch: "e", offset: 7, recovered: true });
  say(s2, "inbox", 6);
  say(s2, "inbox", 7);
  assert.deepEqual([got.map((m) => m.content), joined.length], [[6, 7], 1]);
  const left = heard(inbox, "left");
  s2.say({ msg_type: "left", room: "inbox", reason: "kicked" });
  say(s2, "inbox", 8);
  assert.deepEqual([left, got.length, inbox.joined], [["kicked"], 2, false]);
});

test("a member's second join moves no position, and one that is left at once stays left", async (t) => {
  const { hub, socket } = fake(t);
  const s = await socket(0);
  s.open();
  await settle();
  const room = hub.room("r");
  const both = [room.join(), room.join()];
  const [a, b] = s.all("join_room");
  s.say({ msg_type: "joined", room: "r", id: a.id, epoch: "e", offset: 5 });
  s.say({ msg_type: "joined", room: "r", id: b.id, epoch: "e", offset: 9 }); // 6 to 9 are held back, and come yet
  say(s, "r", 6);
  assert.equal(room.position.offset, 6);
  await Promise.all(both);
  await hub.room("q").join({ timeout: 1 }).catch(() => {});
  assert.equal(s.last("leave_room").room, "q"); // it may have gone through
  const join = hub.room("p").join(), leave = hub.room("p").leave();
  s.say({ msg_type: "joined", room: "p", id: s.last("join_room").id });
  s.say({ msg_type: "left", room: "p", id: s.last("leave_room").id });
  await join;
  await leave;
  assert.equal(hub.room("p").joined, false);
});

test("members are a list, asked for anew where news may have been missed", async (t) => {
  const { hub, socket } = fake(t);
  const s = await socket(0);
  s.open();
  await settle();
  const room = hub.room("r"), lists = [];
  room.on("members", (list, count) => lists.push([list.map((m) => m.client_id + (m.data || "")).join(), count]));
  await inRoom(s, room, { epoch: "e", offset: 0 });
  s.say({ msg_type: "member_joined", room: "r", count: 9, members: [{ client_id: "early" }] });
  s.say({ msg_type: "presence", room: "r", id: s.last("presence").id, count: 2, members: [{ client_id: "a" }, { client_id: "b" }], more: false });
  s.say({ msg_type: "member_joined", room: "r", count: 3, members: [{ client_id: "c" }, { client_id: "a", data: 1 }] });
  s.say({ msg_type: "member_left", room: "r", count: 2, members: [{ client_id: "b" }, { client_id: "nobody" }] });
  assert.deepEqual(lists, [["a,b", 2], ["a1,b,c", 3], ["a1,c", 2]]);
  await settle();
  s.say({ msg_type: "gap", room: "r", count: 1, reason: "drop-oldest" });
  assert.equal(s.all("presence").length, 2);
});

test("what other nodes may have said: a gap of chats has no room, and none has a count", async (t) => {
  const { hub, socket } = fake(t);
  const room = hub.room("r"), chats = heard(hub, "gap"), gaps = heard(room, "gap"), chat = heard(hub, "chat");
  const s = await socket(0);
  s.open();
  await settle();
  await inRoom(s, room, { epoch: "e", offset: 5 });
  s.say({ msg_type: "gap", reason: "node" });
  s.say({ msg_type: "gap", room: "r", reason: "node" });
  s.say({ msg_type: "chat", from: "a", content: "on" });
  assert.deepEqual([chats.length, gaps.length, chat.length], [1, 1, 1]);
  assert.deepEqual([chats[0].reason, chats[0].count, gaps[0].count], ["node", undefined, undefined]);
  assert.equal(room.position.offset, 5);
});

test("close codes: who comes back, and who doesn't", async (t) => {
  for (const code of [1000, 1001, 1006, 1009, 1011, 1013, 4000, 4001, 4002, 4333, 4401, 4499]) {
    let n = 0;
    const { hub, socket } = fake(t, { token: () => "t" + n++ });
    (await socket(0)).open();
    (await socket(0)).end(code);
    assert.equal(hub.state, "waiting", `${code}`);
    await socket(1);
    hub.close();
  }
  for (const code of [1002, 1007, 1008, 4500, 4501, 4503, 4999]) {
    const { hub, socket } = fake(t);
    const s = await socket(0);
    s.open();
    await settle();
    const asked = failure(hub.ping());
    s.end(code, "go away");
    assert.equal(hub.state, "closed", `${code}`);
    assert.match((await asked).message, new RegExp(code >= 4500 ? `${code} go away` : `${code}`));
    assert.equal((await failure(hub.chat("x"))).code, "closed");
  }
});

test("reconnect is obeyed to the millisecond, and check() doesn't hasten it", async (t) => {
  const { hub, socket, sockets } = fake(t);
  const states = heard(hub, "state");
  const s = await socket(0);
  s.open();
  s.say({ msg_type: "reconnect", after_ms: 123456, reason: "drain" });
  s.end(1001);
  hub.check();
  assert.equal(states.at(-1)[1].delay, 123456);
  await new Promise((r) => setTimeout(r, 20));
  assert.equal(sockets.length, 1);
});

test("waits grow, each somewhat at random, up to the longest", async (t) => {
  const { hub, socket } = fake(t, { minDelay: 2, maxDelay: 20 });
  const delays = [];
  hub.on("state", (s, d) => s === "waiting" && delays.push(d.delay));
  for (let i = 0; i < 8; i++) (await socket(i)).end(1006);
  assert.equal(delays.length, 8);
  delays.forEach((d, i) => {
    const most = Math.min(20, 2 * 2 ** i);
    assert.ok(d >= most / 2 && d <= most, `${i}: ${delays}`);
  });
});

test("after a refused handshake /readyz is asked, and its Retry-After counts", async (t) => {
  const answers = [{ status: 503, ok: false, after: "7" }, { status: 200, ok: true }];
  const asked = [];
  const { hub, socket } = fake(t, { minDelay: 20, maxDelay: 20, fetch: async (url) => {
    asked.push(url);
    const a = answers[asked.length - 1];
    return { ...a, headers: new Map([["Retry-After", a.after]]) };
  } });
  const states = heard(hub, "state");
  (await socket(0)).end(1006);
  await settle();
  assert.deepEqual([states.at(-1)[0], states.at(-1)[1].delay, asked], ["waiting", 7000, ["http://test/readyz"]]);

  const other = fake(t, { minDelay: 50, maxDelay: 50, fetch: async () => ({ status: 200, ok: true, headers: new Map() }) });
  const told = heard(other.hub, "state");
  (await other.socket(0)).end(1006);
  await settle();
  assert.equal(told.at(-1)[1].refused, true);
  await other.socket(1);
});

test("the queue is bounded, and full is said at once; what doesn't fit or is no text too", async (t) => {
  const { hub, socket } = fake(t, { queue: 3, queueBytes: 1000 });
  const room = hub.room("r");
  const waiting = [room.publish(1), room.publish(2), room.publish(3)];
  const full = await failure(room.publish(4));
  assert.ok(full instanceof HubbubError && full.code === "queue_full" && full.retry && !full.sent);
  const s = await socket(0);
  s.open({ max_message_bytes: 300 });
  await settle();
  for (const m of s.all("room_message")) s.say({ msg_type: "ack", id: m.id });
  await Promise.all(waiting);
  assert.equal((await failure(room.publish("x".repeat(1000)))).code, "queue_full");
  assert.equal((await failure(room.publish("ä".repeat(150)))).code, "too_large");
  assert.equal((await failure(room.publish("half \ud83d"))).code, "bad_message");
  const fine = room.publish("\ud83d\ude00 and \\ud83d"); // a whole one, and six letters
  assert.equal(s.last("room_message").content, "\ud83d\ude00 and \\ud83d");
  s.say({ msg_type: "ack", id: s.last("room_message").id });
  await fine;
  assert.ok((await failure(room.publish(1n))) instanceof TypeError);
  const loop = {};
  loop.loop = loop;
  assert.ok((await failure(room.publish(loop))) instanceof TypeError);
});

test("what is published is what it was at the call", async (t) => {
  const { hub, socket } = fake(t);
  const content = { n: 1 };
  hub.room("r").publish(content).catch(() => {});
  content.n = 2;
  const s = await socket(0);
  s.open();
  await settle();
  assert.equal(s.last("room_message").content.n, 1);
});

test("an AbortSignal takes it back: before it is sent it never is, and after that nobody waits", async (t) => {
  const { hub, socket } = fake(t);
  const room = hub.room("r");
  const why = new Error("enough");
  const stop = new AbortController();
  const unsent = failure(room.publish("unsent", { signal: stop.signal }));
  stop.abort(why);
  assert.equal(await unsent, why);
  assert.equal(await failure(room.publish("aborted before", { signal: stop.signal })), why);
  const s = await socket(0);
  s.open({ resume_token: "T1" });
  await settle();
  assert.equal(s.sent.length, 0);
  const stop2 = new AbortController();
  const sent = failure(room.publish("sent", { signal: stop2.signal }));
  stop2.abort(why);
  assert.equal(await sent, why);
  s.end(1006);
  const s2 = await socket(1);
  s2.open({ resumed: true });
  s2.say({ msg_type: "resumed", id: s2.sent[0].id, rooms: {} });
  await settle();
  assert.equal(s2.all("room_message").length, 0);
});

test("a dead line is seen by ping, and the session is not ended by giving it up", async (t) => {
  const { socket } = fake(t);
  const s = await socket(0);
  s.open({ ping_interval_ms: 20, pong_timeout_ms: 20 });
  while (!s.last("ping")) await settle();
  s.say({ msg_type: "pong", time: 1 });
  const before = s.all("ping").length;
  while (s.all("ping").length === before) await settle();
  await socket(1);
  assert.equal(s.closed, 4002);
});

test("a token: carried in the subprotocol, renewed before its end by the server's clock, and after 4401", async (t) => {
  const made = [];
  const { hub, socket } = fake(t, { token: async () => made[made.push("t" + made.length) - 1] });
  const s = await socket(0);
  assert.deepEqual(s.offers, ["hubbub", "token.t0"]);
  s.open({ expires_at: 1000, user: "ann" });
  await settle();
  s.say({ msg_type: "pong", time: 1000 - 25 }); // in 20 ms, a fifth before
  while (!s.last("refresh")) await new Promise((r) => setTimeout(r, 1));
  assert.equal(s.last("refresh").token, "t1");
  s.say({ msg_type: "refreshed", id: s.last("refresh").id, expires_at: 1e9 });
  await settle();
  s.end(1006);
  assert.deepEqual((await socket(1)).offers, ["hubbub", "token.t1"]); // still good
  (await socket(1)).end(4401);
  assert.deepEqual((await socket(2)).offers, ["hubbub", "token.t2"]);
  assert.equal(hub.state, "connecting");
  const odd = fake(t, { token: "a b" });
  assert.match((await odd.socket(0)).url, /&token=a%20b$/);
  (await odd.socket(0)).end(4401);
  assert.equal(odd.hub.state, "closed"); // there is no other
});

test("a callback that fails is asked again", async (t) => {
  let n = 0;
  const { hub, socket } = fake(t, { token: async () => {
    if (n++ === 0) throw new Error("signed out");
    return "t";
  } });
  const states = heard(hub, "state");
  await socket(0);
  assert.match(states.find(([s]) => s === "waiting")[1].reason, /signed out/);
});

test("a listener's fault is its own", async (t) => {
  const { hub, socket } = fake(t);
  const s = await socket(0);
  s.open();
  await settle();
  const room = hub.room("r");
  const faults = [];
  const real = globalThis.queueMicrotask;
  globalThis.queueMicrotask = (fn) => real(() => { try { fn(); } catch (e) { faults.push(e.message); } });
  t.after(() => { globalThis.queueMicrotask = real; });
  room.on("message", () => { throw new Error("mine"); });
  const off = room.on("message", () => {});
  off();
  const got = heard(room, "message");
  await inRoom(s, room, {});
  say(s, "r");
  await settle();
  assert.deepEqual([got.length, faults], [1, ["mine"]]);
});

test("no WebSocket, or no address for one, is said", async (t) => {
  assert.throws(() => new Hubbub("ws://x", { WebSocket: null }), /WebSocket/);
  const hub = new Hubbub("nonsense", { WebSocket: class { constructor() { throw new SyntaxError("no URL"); } } });
  t.after(() => hub.close());
  await settle();
  assert.equal(hub.state, "closed");
});

test("pages: what happens to the window has the line checked, and close() listens no more", async (t) => {
  const window = new EventTarget(), document = new EventTarget();
  Object.assign(globalThis, { addEventListener: window.addEventListener.bind(window), removeEventListener: window.removeEventListener.bind(window), document });
  t.after(() => { for (const name of ["addEventListener", "removeEventListener", "document"]) delete globalThis[name]; });
  const { hub, socket } = fake(t);
  const s = await socket(0);
  s.open();
  await settle();
  for (const [target, name] of [[window, "offline"], [window, "online"], [window, "pageshow"], [document, "resume"], [document, "visibilitychange"]]) {
    const before = s.sent.length;
    target.dispatchEvent(new Event(name));
    assert.equal(s.sent.length, before + 1, name);
    s.say({ msg_type: "pong", time: 1 }); // one question is enough until it is answered
  }
  document.hidden = true;
  const before = s.sent.length;
  document.dispatchEvent(new Event("visibilitychange"));
  document.dispatchEvent(new Event("freeze"));
  assert.deepEqual([s.closed, hub.state], [4002, "waiting"]); // the session is kept
  document.dispatchEvent(new Event("resume"));
  const back = await socket(1);
  back.open({ resumed: true });
  hub.close();
  window.dispatchEvent(new Event("online"));
  assert.deepEqual([s.sent.length, back.closed], [before, 1000]);
});
