// The conversation of one room: who is there, what they say and have said, and what became of what one says oneself.
// The client (hubbub.js) comes back by itself and brings what was missed; this shows it.

import { $, clock, element, plural, seconds } from "./elements.js";
import { Log } from "./log.js";
import { clean, nameOf } from "./names.js";

const MOST = 500; // entries of the log
const MOST_TEXT = 5000; // characters of one
const WAIT = 600e3; // ms that what is typed while away may wait
const MOST_NAMES = 30; // of members, that are shown
const SETTLE = 200; // ms for news of members to come together: a new name is a leave and a join

export class Talk {
  constructor(hub, line, room, name) {
    Object.assign(this, { hub, line, name });
    this.room = hub.room(room, { data: { name } });
    this.log = new Log($("log"), $("newer"), $("news"), MOST);
    this._unique = Math.random().toString(36).slice(2, 10) + "-";
    this._said = 0;
    this._shown = new Map(); // epoch and offset -> entry, of what is in the log
    this._mine = new Map(); // content.n -> entry, of what was said here
    this._waiting = new Set(); // of these, what has no answer yet
    this._ids = new Set(); // the client ids that were this page's
    this._early = null; // messages that came while the history is read
    this._known = null; // client id -> name; null: whoever is there now is no news
    $("room").textContent = room;
    this.room.on("message", (m) => (this._early ? this._keep(m) : this._hear(m, this.room.position?.epoch)));
    this.room.on("members", (list, count) => this._members(list, count));
    this.room.on("gap", (g) => this.log.note((g.count === undefined ? "Some messages" : plural(g.count, "message")) + " will not come: " + g.reason));
    this.room.on("lost", (why) => this._lost(why));
    this.room.on("deleted", (what) => this._takenBack(what));
    hub.on("chat", (m) => this._entry(m, "to everyone"));
    hub.on("direct", (m) => this._entry(m, "to you only"));
    hub.on("gap", (g) => this.log.note("Some messages to everyone will not come: " + g.reason));
    hub.on("state", (state) => this._state(state));
    line.tap((direction, text) => direction === "←" && this._answered(text));
    $("here").replaceChildren();
  }

  /** Joins, and shows what was said before. Rejects where the room is closed to this client. */
  async join() {
    await this.room.join({ timeout: WAIT });
    await this._readHistory();
    if (!this.log.last) this.log.note("Nothing has been said here lately. Open this page in a second window, and talk.", "");
  }

  /** Goes by another name from now on. Others are told by a leave and a join; what comes between is in the history. */
  async rename(name) {
    this.name = name;
    const { room } = this;
    this.hub.room(room.name, { data: { name } });
    if (!room.joined) return;
    room.leave({ timeout: WAIT }).catch(() => {});
    await this.join();
  }

  /** What a client is called, as far as it is known. */
  called(id) { return this._known?.get(id); }

  /** Whether a client is this page, now or before it lost its session. */
  isMe(id) { return this._ids.has(id); }

  // --- what one says oneself ---

  say(text) {
    const content = { text, name: this.name, n: this._unique + ++this._said };
    const entry = this._entry({ mine: true, content, time: Date.now() });
    this._mine.set(content.n, entry);
    if (this._mine.size > MOST) this._mine.delete(this._mine.keys().next().value);
    this._deliver(entry, content);
  }

  async _deliver(entry, content) {
    const { _waiting: waiting, room } = this;
    const since = performance.now();
    waiting.add(entry);
    this._fate(entry, this._hope());
    let fate = "sent", failed;
    try {
      const at = await room.publish(content, { publishId: content.n, timeout: WAIT });
      this._know(at.epoch, at.offset, entry);
      const took = performance.now() - since;
      if (took > 1000) fate = "sent after " + seconds(took);
    } catch (e) {
      failed = e;
    }
    if (!waiting.delete(entry)) return; // it was seen in the room meanwhile
    if (failed) fate = failed.code === "unknown" ? "perhaps not sent: the line went before the answer came" : "not sent: " + failed.message;
    this._fate(entry, fate, failed && (() => this._deliver(entry, content)));
  }

  _hope() { return this.hub.state === "online" ? "sending" : "waiting for the line"; }

  _fate(entry, text, again) {
    const fate = entry.querySelector(".fate");
    fate.className = "fate " + (again ? "failed" : this._waiting.has(entry) ? "waiting" : "done");
    fate.replaceChildren(text);
    if (!again) return;
    const button = element("button", "", "Send again");
    button.type = "button";
    button.onclick = () => {
      again();
      $("text").focus();
    };
    fate.append(" ", button);
    this.log.say("A message was not sent");
  }

  // --- what comes ---

  // _readHistory shows what was said that is not shown yet, and keeps what comes meanwhile behind it.
  async _readHistory() {
    if (this._early) return;
    this._early = [];
    let page = { messages: [] };
    try {
      page = await this.room.history({ limit: 100 });
    } catch { /* a room may keep none, or keep it from us */ }
    const early = this._early;
    this._early = null;
    for (const m of page.messages) this._hear(m, page.epoch, true);
    for (const m of early) this._hear(m, this.room.position?.epoch);
  }

  _keep(m) {
    this._early.push(m);
    if (this._early.length > MOST) this._early.shift(); // it would leave the log at once
  }

  _hear(m, epoch, old) {
    if (this._shown.has(epoch + "/" + m.offset)) return;
    const mine = this._ids.has(m.from) && this._mine.get(m.content && m.content.n);
    if (mine) { // the room sends it to its author too, or nobody had said that it went through
      this._waiting.delete(mine);
      this._fate(mine, "sent");
      return this._know(epoch, m.offset, mine);
    }
    this._know(epoch, m.offset, this._entry(m, "", old));
    this._countBehind(epoch, m.offset);
    if (this.onheard) this.onheard(m);
  }

  _know(epoch, offset, entry) {
    if (offset === undefined) return;
    this._shown.set(epoch + "/" + offset, entry);
    if (this._shown.size > 2 * MOST) this._shown.delete(this._shown.keys().next().value);
  }

  _entry({ from, user, content, time, mine }, where = "", old) {
    const name = mine ? this.name : clean(user) || clean(content && content.name) || this._known?.get(from) || nameOf({ client_id: from });
    const text = textOf(content);
    const li = element("li", mine ? "mine" : "");
    li.dataset.from = mine ? "" : from + " " + name;
    const before = this.log.last;
    if (before && before.dataset.from === li.dataset.from && !where) li.classList.add("again");
    const about = element("p", "about", element("strong", "", mine ? "You" : name), " ", clock(time));
    if (user && !mine) where = where ? "signed in, " + where : "signed in"; // all other names anybody may take
    if (where) about.append(" ", element("span", "where", where));
    const said = element("p", "text", text);
    said.dir = "auto"; // as its first letter is written
    const body = element("div", "body", about, said);
    if (mine) body.append(element("p", "fate"));
    li.append(face(name), body);
    return this.log.add(li, mine || old ? "" : name + ": " + text);
  }

  _takenBack({ offset, to_offset: upTo }) {
    const { epoch } = this.room.position || {};
    for (const [key, entry] of this._shown) {
      const at = key.startsWith(epoch + "/") && +key.slice(epoch.length + 1);
      if (at === false || (upTo === undefined ? at !== offset : at > upTo)) continue;
      entry.querySelector(".text").textContent = "taken back";
      entry.classList.add("gone");
    }
  }

  // --- who is there ---

  _members(list, count) {
    $("count").textContent = count === undefined ? "" : count + " here";
    $("connections").textContent = count === undefined ? "–" : count.toLocaleString();
    clearTimeout(this._settling);
    this._settling = setTimeout(() => this._settled(list, count), SETTLE);
  }

  _settled(list, count) {
    if (!this.room.joined) return;
    const now = new Map(list.map((one) => [one.client_id, nameOf(one)]));
    const { hub: { id }, _known: known } = this;
    if (known) {
      const others = [...now].filter(([who]) => who !== id);
      this._tell(others.filter(([who]) => !known.has(who)).map(([, name]) => name), "came in");
      this._tell([...known].filter(([who]) => !now.has(who) && !this._ids.has(who)).map(([, name]) => name), "left");
      for (const [who, name] of others) {
        if (known.has(who) && known.get(who) !== name) this.log.note(known.get(who) + " is " + name + " now");
      }
    }
    this._known = now;
    const shown = [...now].filter(([who]) => who !== id).slice(0, MOST_NAMES);
    const me = now.has(id) ? [element("li", "me", face(this.name), "you")] : [];
    const rest = (count || 0) - shown.length - me.length;
    $("here").replaceChildren(...me, ...shown.map(([, name]) => element("li", "", face(name), name)),
      ...(rest > 0 && shown.length ? [element("li", "", "and " + rest.toLocaleString() + " more")] : []));
  }

  _tell(names, what) {
    if (!names.length) return;
    const [most, rest] = [names.slice(0, 3), names.length - 3];
    this.log.note(most.join(", ") + (rest > 0 ? " and " + plural(rest, "other") : "") + " " + what);
  }

  // --- away, and back ---

  _state(state) {
    if (state === "online") {
      if (!this._ids.has(this.hub.id)) this._known = null; // a new session: the others are new to it, too
      this._ids.add(this.hub.id);
      this._comeBack();
    } else if (this._wentAt === undefined && this._ids.size) {
      this._wentAt = performance.now();
      this._behind = null;
    }
    for (const entry of this._waiting) this._fate(entry, this._hope());
  }

  // _answered reads from the answer to a resume, or to a join with a position, how far the room is: what comes up to
  // there is what was missed.
  _answered(text) {
    if (this._wentAt === undefined || !/^\{"msg_type":"(resumed|joined)"/.test(text)) return;
    const m = JSON.parse(text);
    const r = m.msg_type === "joined" && m.room === this.room.name ? m : (m.rooms || {})[this.room.name];
    if (r && r.recovered) this._behind = { recovered: true, epoch: r.epoch, upTo: r.offset, count: 0 };
  }

  _comeBack() {
    if (this._wentAt === undefined) return;
    const away = performance.now() - this._wentAt;
    this._wentAt = undefined;
    const behind = (this._behind ||= { count: 0 });
    Object.assign(behind, { away, own: this._waiting.size, note: this.log.note("", "") });
    this._showBehind();
  }

  _countBehind(epoch, offset) {
    const { _behind: behind } = this;
    if (!behind || epoch !== behind.epoch || !(offset <= behind.upTo)) return;
    behind.count++;
    this._showBehind();
  }

  _showBehind() {
    const { away, own, note, count, recovered } = this._behind;
    if (!note) return;
    const text = "Back after " + seconds(away) + (!recovered ? "" : count ? ": " + plural(count, "message") + " came after" : ": no message was missed") +
      (own ? ", " + own + " of yours went out" : "");
    note.textContent = $("catch-up").textContent = text;
  }

  _lost(why) {
    this._known = null;
    this.log.note(why === "epoch" ? "The server has begun anew, and what it kept is gone." : "Something may have been missed here (" + why + ").");
    this._readHistory();
  }
}

function textOf(content) {
  const said = content && typeof content.text === "string" ? content.text : content;
  const text = typeof said === "string" ? said : JSON.stringify(said);
  return text.length > MOST_TEXT ? text.slice(0, MOST_TEXT) + " … (" + text.length + " characters)" : text;
}

// face is a sign for a name: its first letter, in one of a few colours.
function face(name) {
  let sum = 0;
  for (const c of name) sum = (sum * 31 + c.codePointAt(0)) % 997;
  const e = element("span", "face face" + (sum % 6), [...name][0].toUpperCase());
  e.setAttribute("aria-hidden", "true");
  return e;
}
