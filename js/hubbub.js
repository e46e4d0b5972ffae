// The JavaScript client of Hubbub: one module without dependencies, for browsers, workers, React Native and Node.
// How it is used: README.md. What it speaks: docs/protocol.md.
//
// All that awaits an answer stands in `_pending`, in the order of the calls; a lost connection leaves it there, and the
// next one sends it again where that is safe. A room keeps its position, and by it the server brings what was missed.

/** What a promise is rejected with. `code` is the server's, or `timeout`, `unknown`, `queue_full`, `too_large`, `closed`, `aborted`. */
export class HubbubError extends Error {
  constructor(code, message, more) {
    super(message);
    this.name = "HubbubError";
    this.code = code;
    Object.assign(this, { retry: false }, more);
  }
}

class Emitter {
  _heard = new Map();

  /** Calls fn at each event, until the function that it returns is called. */
  on(event, fn) {
    const all = this._heard.get(event) || new Set();
    this._heard.set(event, all.add(fn));
    return () => all.delete(fn);
  }

  _emit(event, ...what) {
    const all = this._heard.get(event);
    for (const fn of new Set(all)) {
      try {
        all.has(fn) && fn(...what);
      } catch (e) {
        queueMicrotask(() => { throw e; }); // it is the listener's fault, and must not leave us half way
      }
    }
  }
}

const wrong = (what) => { throw new TypeError(what); };
const offsetOf = (n) => (Number.isSafeInteger(n) && n >= 0 ? n : wrong("offset"));
const positionOf = ({ epoch, offset }) => (epoch === undefined ? null : { epoch: epoch.substring(0), offset: offsetOf(offset) });
const bytesOf = (text) => encodeURIComponent(text).replace(/%../g, "x").length;
const aDay = 864e5, longest = 6e5; // that we wait because somebody says so

class Room extends Emitter {
  joined = false;
  position = null; // in a room without history it stays so
  members = [];
  _moving = 0; // joins and leaves that await their answers

  constructor(hub, name) {
    super();
    this._hub = hub;
    this.name = name;
  }

  on(event, fn) {
    const off = super.on(event, fn);
    if (event === "members") this._look();
    return off;
  }

  /** Joins, for as long as it is not left: the hub joins it again by itself. */
  async join({ since, ...o } = {}) {
    if (this.joined && !this._moving) return { room: this.name, ...this.position };
    return this._move("join", { since, data: this._data }, o, {
      _done: (m) => this._joined(m, since),
      _failed: () => this.joined || this._moving > 1 || this._hub._say({ msg_type: "leave_room", room: this.name }),
    });
  }

  async leave(o) {
    this._left();
    return this._move("leave", {}, o, { _done: () => this._left() });
  }

  _move(way, m, o, op) {
    this._moving++;
    return this._ask(way + "_room", m, o, op).finally(() => this._moving--);
  }

  _ask(msg_type, m, o, op) { return this._hub._ask({ msg_type, room: this.name, ...m }, o, op); }

  /** Sends to the other members, once, whatever becomes of the connection. */
  publish(content, { key, publishId, ...o } = {}) {
    return this._ask("room_message", { content, key, publish_id: publishId || this._hub._unique + this._hub._ids }, o, { _room: this });
  }

  history({ timeout, signal, ...m } = {}) {
    return this._ask("history", m, { timeout, signal });
  }

  presence(o) {
    return this._ask("presence", {}, o);
  }

  // _joined takes an answer to a join: with a since; or of a room that it was in before, `back`. A recovered one keeps
  // its place, from which the messages move it on. A member's second join proves nothing of what is still on its way.
  _joined(m, since, back) {
    const was = this.joined, here = positionOf(m);
    this.joined = true;
    this._back = false;
    if (since && m.recovered) this.position = { ...since };
    else if (since || back || !was) this.position = here;
    if (!was) this._hub._emit("joined", this);
    if ((since || back) && !m.recovered) this._emit("lost", m.reason || (m.epoch ? "expired" : "no_history"));
    this._look();
  }

  // _putIn takes a joined that nobody asked for. On the way back a join with our position is behind it.
  _putIn(m) {
    if (!this.joined) return this._joined(m);
    if (this._back || this.position?.epoch === m.epoch) return;
    this.position = positionOf(m);
    this._emit("lost", "epoch");
  }

  _left(reason) {
    const was = this.joined;
    this.joined = this._back = false;
    this.position = this._members = null;
    this.members = [];
    if (was && reason) this._emit("left", reason);
  }

  // _placed takes what has its place in the room's order. On the way back it lies beyond what was missed: the answer to
  // the join has all of it brought, or says lost.
  _placed(event, m) {
    const here = this.position, to = event === "message" ? m.offset : m.to_offset;
    if (!this.joined || this._back) return;
    if (event === "gap" && m.epoch !== undefined) this.position = positionOf({ ...m, offset: to });
    else if (to !== undefined && here) {
      if (offsetOf(to) > here.offset) this.position = { ...here, offset: to };
      else if (event === "message") return; // it has come already
    }
    this._emit(event, m);
    if (event === "gap") this._look();
  }

  // _look asks who is there, if anybody wants to know: at first, and whenever news may have been missed.
  async _look() {
    if (!this.joined || !this._heard.get("members")?.size || !this._hub._welcomed) return;
    if (this._looking) {
      this._looking = 2; // the answer may be older than what was missed
      return;
    }
    this._looking = 1;
    let again;
    try {
      await this._ask("presence", {}, {}, { _own: true, _done: (m) => {
        if (this._looking > 1 || !this.joined) return;
        this._members = new Map();
        this._news(m, true);
      } });
      again = this._looking > 1 && 100;
    } catch (e) {
      again = e.retry && (e.retryAfter || 1e3);
    }
    this._looking = 0;
    if (again) this._hub._after("look " + this.name, again, () => this._look());
  }

  _news(m, come) {
    if (!this._members) return;
    for (const one of m.members || []) this._members[come ? "set" : "delete"](one.client_id, one);
    this.members = [...this._members.values()];
    this.count = m.count;
    this._emit("members", this.members, m.count);
  }
}

export class Hubbub extends Emitter {
  state = "connecting";
  id;
  user;

  _pending = new Map(); // what awaits an answer, by id, in the order of the calls
  _bytes = 0; // of these
  _ids = 0;
  _rooms = new Map();
  _timers = new Map(); // of this connection, or of the wait for the next one
  _turn = 0; // counts the connections, so that what belongs to an old one is known
  _tries = 0;
  _unique = Math.random() + "-";
  _listening = new AbortController(); // it is listeners' option as it is: it has a signal

  constructor(url, options) {
    super();
    const { location, document, WebSocket, fetch } = globalThis;
    const o = (this._options = { timeout: 1e4, sendTimeout: 6e4, queue: 1000, queueBytes: 4 << 20, minDelay: 500, maxDelay: 3e4, WebSocket, fetch, ...options });
    o.WebSocket || wrong("set the option WebSocket");
    this._url = (location ? new URL(url, location.href).href : url).replace(/^http/, "ws").replace(/^(\w+:\/\/[^/?#]+)(?![^?#])/, "$1/");
    // A frozen page hears nothing: what comes would pile up, and its browser would end the session as it thaws.
    const heed = ({ type }) => type === "freeze" ? this._open && this._drop(type) : type === "visibilitychange" && document.hidden || this.check();
    for (const name of ["online", "offline", "pageshow", "visibilitychange", "freeze", "resume"]) {
      for (const target of [globalThis, document]) target?.addEventListener?.(name, heed, this._listening);
    }
    queueMicrotask(() => this._connect()); // whoever makes it wants to hear of all its states
  }

  /** The room of this name, always the same object; data is what others see of this client in its presence. */
  room(name, { data } = {}) {
    let room = this._rooms.get(name);
    if (!room) this._rooms.set(name, (room = new Room(this, name)));
    if (data !== undefined) room._data = data;
    return room;
  }

  chat(content, o) { return this._ask({ msg_type: "chat", content }, o); }

  send(to, content, o) { return this._ask({ msg_type: "direct_message", to, content }, o); }

  async request(method, content, o) {
    return (await this._ask({ msg_type: "request", method, content }, o)).content;
  }

  ping(o) { return this._ask({ msg_type: "ping" }, o); }

  /** Finds out now whether the line is alive; when it waits to come back, it does so soon. */
  check() {
    if (this._welcomed) (this._asked && !this._alive) || this._probe(Math.min(this._pings[1], 5e3));
    else if (this.state === "waiting" && !this._ordered) this._after("main", Math.random() * 1e3, () => this._connect());
  }

  /** Ends the session. What awaits an answer is rejected. */
  close() { this._end({ code: 1000, reason: "close()" }); }

  // --- what awaits an answer ---

  // _ask sends a message, when it can be, and promises its answer. op says how it behaves beside that: _own ends with
  // the connection and needs no queue, _room is a publish, which may be sent again to the same publisher's account. What
  // is _again may be sent any number of times, and the others once. _done gets the answer as it comes, in order.
  _ask(m, { signal, timeout } = {}, op = {}) {
    return new Promise((resolve, reject) => {
      const { _pending: pending, _options: o } = this;
      const kind = m.msg_type, said = /chat|message/.test(kind);
      timeout ??= !op._own && /chat|_/.test(kind) ? o.sendTimeout : o.timeout;
      if (this.state === "closed") throw new HubbubError("closed", "the hub is closed");
      const id = ++this._ids;
      const text = JSON.stringify({ ...m, id }); // now: the content may change later
      if (/[^\\](\\\\)*\\ud[89a-f]/.test(text)) throw new HubbubError("bad_message", "broken text");
      if (!op._own && (pending.size >= o.queue || this._bytes + text.length > o.queueBytes)) {
        throw new HubbubError("queue_full", "queue full", { retry: true });
      }
      const abort = () => op._end(signal.reason || new HubbubError("aborted")); // React Native's signals have none
      const timer = setTimeout(() => op._end(new HubbubError("timeout", `no answer in time: ${this.state}`, { retry: true })), Math.min(timeout, aDay));
      op._again = !said && kind !== "request";
      op._yes = said ? "a" : kind[0]; // as an answer's kind begins: ack, or as the question's
      op._text = text;
      op._end = (error, answer) => {
        if (!pending.delete(id)) return;
        this._bytes -= text.length;
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        if (!error) return resolve(answer);
        if (error instanceof HubbubError) error.sent = !!op._by;
        if (op._by && !answer) op._failed?.();
        reject(error);
      };
      signal?.addEventListener("abort", abort);
      pending.set(id, op);
      this._bytes += text.length;
      if (signal?.aborted) abort();
      else if (this._ready || (op._own && this._welcomed)) this._send(op);
    });
  }

  _send(op) {
    const { _text: text, _room: room } = op;
    if (text.length * 3 > this._max && bytesOf(text) > this._max) {
      return op._end(new HubbubError(op._by ? "unknown" : "too_large", "at most " + this._max));
    }
    if (op._by) op._twice = room && {};
    else {
      op._at = Date.now();
      op._epoch = room?.position?.epoch;
    }
    op._by = this.id;
    op._user = this.user;
    this._socket.send(text);
  }

  _say(m) { if (this._ready) this._socket.send(JSON.stringify(m)); }

  // _safe says whether what was sent before may be sent again. A publish may where the server must know it: in the same
  // session, or from the same user to a room whose log is proved to be the same one, and not too long ago.
  _safe(op) {
    if (!op._by || op._again) return true;
    const { _room: room } = op;
    return room && Math.abs(Date.now() - op._at) < 1e5 && (op._by === this.id ||
      (this.user && op._user === this.user && op._epoch && !room._back && room.position?.epoch === op._epoch));
  }

  // --- the connection ---

  async _connect() {
    const turn = ++this._turn;
    if (this.state === "closed") return;
    this._set("connecting");
    if (turn !== this._turn) return; // a listener has closed it; likewise below
    this._after("main", this._options.timeout, () => this._drop("no answer in time"));
    let token, socket;
    try {
      token = await this._token();
    } catch (e) {
      if (turn === this._turn) this._gone(0, "no token: " + e, true);
      return;
    }
    if (turn !== this._turn) return;
    this._last = token;
    if (token && token === this._refused) return this._end({ code: 4401, reason: "no newer token" });
    this._shown = token;
    let url = this._url + (this._url.includes("?") ? "&" : "?") + "errors=close", offers;
    if (this._resume) url += "&resume=" + encodeURIComponent(this._resume);
    if (token && /^[\w.~+-]+$/.test(token)) offers = ["hubbub", "token." + token]; // in no proxy's log
    else if (token) url += "&token=" + encodeURIComponent(token);
    try {
      socket = new this._options.WebSocket(url, offers);
    } catch (e) {
      return this._end({ code: 0, reason: "" + e }); // no address for a WebSocket
    }
    this._socket = socket;
    const mine = (fn) => (e) => socket === this._socket && fn(e);
    socket.onopen = mine(() => { this._open = true; });
    socket.onmessage = mine((e) => this._hear(e.data));
    socket.onclose = mine((e) => this._gone(e.code, e.reason));
    socket.onerror = mine(() => this._after("error", 50, () => this._drop("error"))); // where no close follows
  }

  // _token is the one at hand while it is good, or a new one.
  _token(fresh) {
    const { token } = this._options;
    return typeof token === "function" ? !fresh && this._last || token() : token;
  }

  // _drop gives a connection up without ending its session, which only 1000, 1001 and no code do.
  _drop(reason) {
    const { _socket: socket } = this;
    this._socket = null;
    if (socket) socket.terminate ? socket.terminate() : socket.close(4002);
    this._gone(1006, reason);
  }

  _gone(code, reason, ours) {
    if (this.state === "closed") return;
    const { _reconnect: ordered, _open: open } = this;
    const turn = ++this._turn;
    if (Date.now() - this._since > 5e3) this._tries = 0;
    this._forget();
    const lost = new HubbubError("unknown", `the connection ended before the answer: ${code} ${reason}`);
    for (const op of this._pending.values()) {
      if (op._own || (op._by && !op._again && (!op._room || code === 1009))) op._end(lost);
    }
    const renew = code === 4401;
    if (renew) [this._refused, this._last] = [this._shown];
    if (/^(4[5-9]|100[278])/.test(code) || (renew && typeof this._options.token !== "function")) {
      return this._end({ code, reason });
    }
    const most = Math.min(this._options.maxDelay, this._options.minDelay * 2 ** this._tries++);
    const delay = ordered ?? most * (0.5 + Math.random() / 2), detail = { code, reason }, due = Date.now() + delay;
    this._wait(delay, detail, ordered !== undefined);
    if (!open && !ours && turn === this._turn) this._askReady(turn, detail, due);
  }

  _wait(delay, detail, ordered) {
    this._ordered = ordered;
    this._after("main", delay, () => this._connect());
    this._set("waiting", { ...detail, delay });
  }

  // _askReady learns what a refused handshake doesn't tell a page: how long the server wants to be left alone, or that
  // it would let others in.
  async _askReady(turn, detail, due) {
    try {
      const { signal } = (this._stop = new AbortController());
      const url = this._url.replace(/^ws/, "http").replace(/[^/]*([?#].*)?$/, "readyz");
      const r = await (0, this._options.fetch)(url, { method: "HEAD", signal });
      const seconds = +r.headers.get("Retry-After");
      if (turn !== this._turn) return;
      const full = r.status === 503 && seconds > 0;
      this._wait(Math.max(full && Math.min(seconds * 1e3, longest), due - Date.now()), { ...detail, refused: r.ok }, full);
    } catch { /* no answer, or no fetch: the wait stays as it is */ }
  }

  // _forget is what goes with a connection, or with the wait for one.
  _forget() {
    for (const timer of this._timers.values()) clearTimeout(timer);
    this._timers.clear();
    this._stop?.abort();
    this._socket = this._stop = null;
    this._welcomed = this._ready = this._open = this._asked = false;
    this._reconnect = this._expires = this._since = undefined;
    for (const room of this._rooms.values()) room._back = false;
  }

  _end(detail) {
    if (this.state === "closed") return;
    const { _socket: socket } = this;
    this._turn++;
    this._forget();
    socket?.close(1000);
    this._listening.abort();
    this._set("closed", detail);
    for (const op of this._pending.values()) op._end(new HubbubError(op._by && !op._again ? "unknown" : "closed", `closed: ${detail.code} ${detail.reason}`));
  }

  _set(state, detail = {}) {
    this.state = state;
    this._emit("state", state, detail);
  }

  _after(name, ms, fn) {
    if (this.state === "closed") return;
    clearTimeout(this._timers.get(name));
    this._timers.set(name, setTimeout(() => {
      this._timers.delete(name);
      fn();
    }, Math.min(ms, aDay)));
  }

  // --- what comes ---

  // _hear gives a connection up over which comes what is no message, or none that can be read: nobody knows what it was,
  // and the next one brings it. What is no text has no trim().
  _hear(data) {
    try {
      this._alive = true;
      this._take(JSON.parse(data.trim()));
    } catch (e) {
      this._drop("" + e);
    }
  }

  _take(m) {
    const kind = m.msg_type;
    kind.trim() || wrong("msg_type");
    if (!this._welcomed) return kind === "welcome" && (m.client_id && m.max_message_bytes > 0 ? this._welcome(m) : wrong(kind));
    const op = this._pending.get(m.id);
    if (op?._by) {
      if (kind === "error") {
        // Of a publish that was sent twice it says nothing of the first.
        return op._end(new HubbubError(op._twice ? "unknown" : m.code, m.message, op._twice || { retry: !!m.retry, retryAfter: m.retry_after_ms }), m);
      }
      if (kind[0] !== op._yes) return op._end(new HubbubError("internal", "the answer is " + kind));
      op._done?.(m);
      return op._end(null, m);
    }
    if (m.id !== undefined) return; // an answer that is late, or comes twice
    const room = this._rooms.get(m.room);
    switch (kind) {
      case "welcome": return;
      case "room_message": return room?._placed("message", m);
      case "gap": case "deleted": return m.room === undefined ? this._emit(kind, m) : room?._placed(kind, m);
      case "joined": return m.room && this.room(m.room)._putIn(m);
      case "left": return room?._left(m.reason || "left");
      case "member_joined": return room?._news(m, true);
      case "member_left": return room?._news(m, false);
      case "pong": return this._tellTime(m);
      case "reconnect": return this._reconnect = m.after_ms >= 0 ? Math.min(m.after_ms, longest) : wrong(kind);
      case "direct_message": return this._emit("direct", m);
      case "chat": case "error": return this._emit(kind, m);
      default: return this._emit("other", m);
    }
  }

  async _welcome(m) {
    const { _turn: turn, id } = this, resumed = m.resumed && m.client_id === id;
    this._welcomed = true;
    this.id = m.client_id;
    this.user = m.user;
    this._resume = m.resume_token;
    this._max = m.max_message_bytes;
    this._pings = [m.ping_interval_ms || 25e3, m.pong_timeout_ms || 1e4];
    this._expires = m.expires_at;
    clearTimeout(this._timers.get("main"));
    this._watch();
    const rooms = [...this._rooms.values()].filter((room) => room.joined);
    await Promise.all(resumed ? this._resumeAll(rooms) : rooms.map((room) => this._rejoin(room)));
    if (turn !== this._turn) return;
    this._ready = true;
    this._since = Date.now();
    for (const op of this._pending.values()) {
      if (op._own) continue; // it is of this connection
      if (this._safe(op)) this._send(op);
      else op._end(new HubbubError("unknown", "the connection ended before the answer"));
    }
    if (this._expires) this._say({ msg_type: "ping" }); // its answer has the server's time
    this._set("online");
  }

  // _resumeAll names all rooms in messages that the server takes, one behind the other.
  _resumeAll(rooms) {
    let page = [], size = 0;
    const pages = [page];
    for (const room of rooms) {
      const more = JSON.stringify([room.name, room.position]).length * 3; // a character has 3 bytes at most
      size += more;
      if (page.length === 1000 || (page.length && size > this._max - 200)) {
        pages.push((page = []));
        size = more;
      }
      page.push(room);
    }
    return pages.map(async (these) => {
      const m = { msg_type: "resume", rooms: Object.fromEntries(these.map((room) => [room.name, room.position])), last: these === page ? undefined : false };
      const { _turn: turn } = this;
      try {
        await this._ask(m, {}, { _own: true, _done: (answer) => {
          const all = new Map(Object.entries(answer.rooms || {}));
          for (const room of these) this._resumed(room, all.get(room.name));
        } });
      } catch (e) {
        if (turn !== this._turn) return;
        if (e.code !== "timeout") return these.forEach((room) => this._later(room));
        this._resume = undefined; // the rooms are joined one by one then
        this._drop(e.message);
      }
    });
  }

  _resumed(room, r) {
    if (!room.joined) return;
    if (!r || r.retry) this._later(room);
    else if (r.reason === "forbidden") room._left(r.reason);
    else room._joined(r, room.position, true);
  }

  // _rejoin joins a room anew from where it was, without the session.
  async _rejoin(room) {
    if (!room.joined) return;
    const { _turn: turn } = this;
    const since = room.position || undefined;
    room._back = true;
    try {
      await room._ask("join_room", { since, data: room._data }, {}, { _own: true, _done: (m) => {
        if (room.joined) room._joined(m, since, true);
      } });
    } catch (e) {
      if (turn !== this._turn) return;
      if (e.retry) this._later(room, e.retryAfter);
      else room._left(e.code || "" + e);
    }
  }

  _later(room, ms = 1e3) {
    room._back = room.joined;
    this._after("join " + room.name, ms * (1 + Math.random() / 2), () => room._back && this._rejoin(room));
  }

  // --- signs of life, and time ---

  _watch() {
    this._after("ping", this._pings[0] / 2, () => {
      if (!this._alive) return this._probe(this._pings[1]);
      this._alive = false;
      this._watch();
    });
  }

  _probe(wait) {
    const asked = (this._asked = Date.now());
    this._alive = false;
    this._socket.send('{"msg_type":"ping"}');
    this._after("ping", wait, () => {
      this._asked = 0;
      if (this._alive) this._watch();
      else if (Date.now() - asked > wait + 2e3) this._probe(wait); // this page was asleep itself
      else this._drop("no sign of life");
    });
  }

  _tellTime(m) {
    if (!this._expires || typeof this._options.token !== "function" || this._timers.has("refresh")) return;
    const left = this._expires - m.time; // both by the server's clock
    this._after("refresh", left - Math.min(6e4, left / 5), () => this._refresh());
  }

  async _refresh() {
    const { _turn: turn } = this;
    try {
      const token = await this._token(true);
      if (turn !== this._turn) return;
      this._last = token;
      const { expires_at: ends } = await this._ask({ msg_type: "refresh", token }, {}, { _own: true });
      ends <= this._expires && wrong("no newer token");
      this._expires = ends;
      this._say({ msg_type: "ping" });
    } catch (e) {
      if (turn !== this._turn) return;
      if (e?.code === "forbidden") this._drop(e.message);
      else if (e?.code !== "unavailable") this._after("refresh", 5e3 * (1 + Math.random()), () => this._refresh());
    }
  }
}
