// A WebSocket that the test is the server of: it sees what the client sends and says what it likes.
import { Hubbub } from "../hubbub.js";

export function fake(t, options = {}) {
  const f = { sockets: [], welcome: { client_id: "c1", protocol: 1, max_message_bytes: 65536, ping_interval_ms: 25000, pong_timeout_ms: 10000 } };
  class Socket {
    constructor(url, offers) {
      Object.assign(this, { url, offers, sent: [], closed: undefined });
      f.sockets.push(this);
    }
    send(text) { this.sent.push(JSON.parse(text)); }
    close(code) { this.closed = code; }
    // The test's side.
    open(welcome) {
      this.onopen({});
      this.say({ msg_type: "welcome", ...f.welcome, ...welcome });
    }
    say(m) { this.onmessage({ data: typeof m === "string" ? m : JSON.stringify(m) }); }
    end(code, reason = "") { this.onclose({ code, reason }); }
    last(kind) { return this.sent.findLast((m) => m.msg_type === kind); }
    all(kind) { return this.sent.filter((m) => m.msg_type === kind); }
  }
  f.hub = new Hubbub("ws://test/ws", { WebSocket: Socket, fetch: null, minDelay: 1, maxDelay: 2, ...options });
  t.after(() => f.hub.close());
  // The nth connection, as soon as the client has made it.
  f.socket = async (n) => {
    while (f.sockets.length <= n) await new Promise((r) => setTimeout(r, 1));
    return f.sockets[n];
  };
  return f;
}

/** Lets all that has been promised happen. */
export const settle = () => new Promise((r) => setImmediate(r));

/** Joins a room, which the server answers with this. */
export const inRoom = async (s, room, joined) => {
  const waiting = room.join();
  s.say({ msg_type: "joined", room: room.name, id: s.last("join_room").id, ...joined });
  return waiting;
};
/** A message of a room. */
export const say = (s, room, offset) => s.say({ msg_type: "room_message", from: "x", content: offset, room, time: 1, offset });
/** All that an event has told from now on. */
export const heard = (emitter, event) => {
  const all = [];
  emitter.on(event, (...what) => all.push(what.length > 1 ? what : what[0]));
  return all;
};
