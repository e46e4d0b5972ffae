// The page of the chat. A Talk is one room with its log; what stands around it is below. What comes from others is theirs
// to choose, so it goes into the page as text alone.
import { Hubbub } from "./hubbub.js";

const $ = (id) => document.getElementById(id);
const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
const stored = JSON.parse(sessionStorage.getItem("chat") || "{}"); // of this tab: a reload keeps them
const PAGE = 30; // messages of history
const LINES = 3000; // of one room in the page; more is read again when it is wanted
const TYPING = 4000; // ms for which one who types counts as typing
const newId = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

const hub = new Hubbub("/ws");
const talks = new Map(); // by the room's name
let me, current;
let others = []; // rooms that anybody is in

// asked repeats what only asks until it is answered.
async function asked(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (e) {
      if (!e.retry) throw e;
      await new Promise((done) => setTimeout(done, e.retryAfter || 1000));
    }
  }
}

class Talk {
  epochs = []; // of the room's log, the newest last: a new one begins when the server has lost it
  newest = 0; // offsets of that epoch that are shown
  oldest = Infinity;
  lines = new Map(); // by epoch and offset, so that a message is shown once, whichever way it comes
  unsent = new Map(); // own ones without a place yet, by the id in their content
  typists = new Map(); // by client id: the name, and the timer that ends it
  members = [];
  unread = 0;
  atEnd = true;

  constructor(name) {
    this.name = name;
    this.room = hub.room("chat:" + name, { data: { name: me } });
    this.typing = hub.room("typing:" + name);
    this.box = make("div", "log");
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "log");
    this.box.setAttribute("aria-label", "Messages in " + name);
    this.more = make("button", "older", "Older messages");
    this.more.addEventListener("click", () => this.older());
    this.list = make("ol");
    this.box.append(this.more, this.list);
    this.box.addEventListener("scroll", () => this.scrolled());
    this.resized = new ResizeObserver(() => this.atEnd && this.toEnd());
    this.resized.observe(this.box);
    this.off = [
      this.room.on("message", (m) => this.heard(m)),
      this.room.on("members", (list) => this.met(list)),
      this.room.on("gap", (g) => this.note(`${g.count ?? "Some"} messages will not come (${g.reason})`, "lost")),
      this.room.on("lost", (why) => this.lost(why)),
      this.room.on("left", (why) => this.note(`You are out of this room: ${why}`, "lost")),
      this.typing.on("message", (m) => this.types(m.from, m.content)),
    ];
  }

  async join() {
    await asked(() => this.room.join());
    this.typing.join().catch(() => {}); // without it nobody is seen typing, and that is all
    await this.older(); // what comes meanwhile has its place by its offset
  }

  leave() {
    for (const off of this.off) off();
    this.resized.disconnect();
    this.box.remove();
    for (const room of [this.room, this.typing]) room.leave().catch(() => {}); // at the latest the end of the session does it
  }

  // --- messages ---

  heard(m) {
    this.types(m.from, null);
    if (this.show(m, this.room.position.epoch) && (this !== current || document.hidden)) {
      this.unread++;
      drawRooms();
    }
  }

  // show puts a message into its place, and says whether it is a new one. One's own come, too: in a page of the history,
  // or where the session was lost before the answer.
  show(m, epoch) {
    if (this.lines.has(epoch + " " + m.offset)) return false;
    const { id, name, text } = m.content || {};
    const line = this.unsent.get(id) || lineOf(m.from === "server" ? "Server" : name, text ?? m.content, m.time);
    this.settle(line, epoch, m.offset);
    return true;
  }

  // settle gives a line the place that the room gave to its message.
  settle(line, epoch, offset) {
    const key = epoch + " " + offset;
    const there = this.lines.get(key);
    this.unsent.delete(line.message);
    if (there) {
      if (there !== line) line.remove();
      return;
    }
    if (!this.epochs.includes(epoch)) {
      this.epochs.push(epoch);
      this.newest = 0;
      this.oldest = Infinity;
    }
    this.lines.set((line.key = key), line);
    this.newest = Math.max(this.newest, offset);
    this.oldest = Math.min(this.oldest, offset);
    line.classList.remove("waits", "failed");
    line.querySelector(".fate").textContent = line.classList.contains("own") ? "✓ sent" : "";
    line.querySelector(".again")?.remove();
    this.put(line, this.epochs.indexOf(epoch), offset);
  }

  // put keeps the lines in the order of their places. What has none yet stays at the end.
  put(line, epoch = Infinity, offset = Infinity) {
    line.place = { epoch, offset };
    let before = this.list.lastElementChild;
    while (before && (before === line || before.place.epoch > epoch || (before.place.epoch === epoch && before.place.offset > offset))) {
      before = before.previousElementSibling;
    }
    if (before) before.after(line);
    else this.list.prepend(line);
    if (this.atEnd) this.toEnd();
  }

  // trim takes the oldest lines out of the page.
  trim() {
    while (this.list.childElementCount > LINES) {
      const { key, place } = this.list.firstElementChild;
      this.list.firstElementChild.remove();
      this.lines.delete(key);
      if (place.epoch === this.epochs.length - 1) this.oldest = Math.floor(place.offset) + 1;
      this.more.hidden = false;
    }
  }

  // say publishes. Away, it waits in the client, and goes out when the line is back.
  async say(text, id = newId()) {
    const line = lineOf(me, text, Date.now());
    const fate = line.querySelector(".fate");
    line.message = id;
    line.classList.add("own", "waits");
    fate.textContent = "sending…";
    this.unsent.set(id, line);
    this.put(line);
    this.toEnd();
    try {
      const { epoch, offset } = await this.room.publish({ id, name: me, text }, { publishId: id });
      this.settle(line, epoch, offset);
    } catch (e) {
      if (!this.unsent.has(id)) return; // it has come back from the room
      line.classList.add("failed");
      fate.textContent = e.sent ? "perhaps not sent" : "not sent"; // where it was sent, it may have gone through
      const again = make("button", "again", "Send again");
      again.addEventListener("click", () => {
        this.unsent.delete(id);
        line.remove();
        this.say(text, id);
      });
      fate.after(again);
    }
  }

  note(text, className = "") {
    const line = make("li", "note " + className, text);
    this.put(line, this.epochs.length - 1, this.newest + 0.5);
  }

  // lost is told where nothing proves that nothing was missed: the log says so, and shows what the room still has.
  async lost(why) {
    const { epochs: { length }, newest } = this;
    const anew = why === "epoch" || !length;
    this.note(why === "epoch" ? "The server began anew: the last words before this may be missing" : `Messages may be missing here (${why})`, "lost");
    await this.reading?.catch(() => {}); // it may be of the log that was lost
    if (anew) {
      this.more.hidden = false;
      this.oldest = Infinity;
      return this.older();
    }
    let since = { epoch: this.epochs[length - 1], offset: newest }, page;
    try {
      do {
        page = await asked(() => this.room.history({ since, limit: PAGE }));
        for (const m of page.messages) since = { epoch: page.epoch, offset: m.offset }, this.show(m, page.epoch);
      } while (page.more && page.messages.length);
    } catch (e) {
      if (e.code !== "bad_position") this.note(`The history can't be read: ${e.message}`); // else it was lost once more
    }
  }

  // older reads the page before the oldest message that is shown; the newest page where none is.
  async older() {
    if (this.reading) return this.reading;
    const { oldest: offset } = this;
    const before = offset < Infinity ? { epoch: this.epochs.at(-1), offset } : undefined;
    this.reading = asked(() => this.room.history({ before, limit: PAGE }));
    try {
      const page = await this.reading;
      const { scrollHeight: height, scrollTop: top } = this.box;
      for (const m of page.messages) this.show(m, page.epoch);
      if (!page.more && document.activeElement === this.more) this.box.focus({ preventScroll: true });
      this.more.hidden = !page.more;
      if (!this.atEnd) this.box.scrollTop = top + this.box.scrollHeight - height; // what one reads stays where it is
    } catch (e) {
      if (e.code !== "bad_position") this.note(`The history can't be read: ${e.message}`); // else it is of the log that was lost
    } finally {
      this.reading = null;
    }
  }

  scrolled() {
    if (this !== current) return;
    const { scrollTop, scrollHeight, clientHeight } = this.box;
    this.atEnd = scrollHeight - scrollTop - clientHeight < 40;
    if (scrollTop < 60 && !this.atEnd && !this.more.hidden) this.older();
  }

  toEnd() {
    this.atEnd = true;
    this.trim();
    this.box.scrollTop = this.box.scrollHeight;
  }

  // --- people ---

  met(list) {
    this.members = list;
    if (this === current) drawMembers();
  }

  types(from, name) {
    const was = this.typists.get(from);
    if ((!was && !name) || from === hub.id) return;
    clearTimeout(was?.timer);
    if (name) this.typists.set(from, { name, timer: setTimeout(() => this.types(from, null), TYPING) });
    else this.typists.delete(from);
    if (this === current) drawTyping();
  }

  // iType tells the others, now and then, and only while somebody may hear it at once.
  iType() {
    if (hub.state !== "online" || Date.now() - (this.typed || 0) < TYPING / 2) return;
    this.typed = Date.now();
    this.typing.publish(me, { key: hub.id, timeout: TYPING }).catch(() => {});
  }
}

const short = (name) => (typeof name === "string" && name.trim().slice(0, 40)) || "Somebody";

function lineOf(name, text, time) {
  const line = make("li", "line");
  const head = make("div", "head");
  const at = make("time", "", new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  head.append(make("span", "who", short(name)), at, make("span", "fate"));
  line.append(head, make("div", "text", typeof text === "string" ? text : JSON.stringify(text)));
  return line;
}

// --- the frame ---

function enter(name, rooms = ["general", "random"]) {
  me = name;
  $("me").textContent = "you are " + me;
  $("welcome").hidden = true;
  $("chat").hidden = false;
  for (const room of rooms) open(room);
  select(talks.get(rooms[0]));
  listRooms().catch(() => {}); // the hub is closed
  $("text").focus();
}

function open(name) {
  const talk = new Talk(name);
  talks.set(name, talk);
  talk.join().catch((e) => talk.note(`This room can't be joined: ${e.message}`, "lost"));
  return talk;
}

function select(talk) {
  if (current) current.top = current.box.scrollTop; // out of the page it is forgotten
  current = talk;
  talk.unread = 0;
  $("title").textContent = "# " + talk.name;
  $("logs").replaceChildren(talk.box);
  if (talk.atEnd) talk.toEnd();
  else talk.box.scrollTop = talk.top;
  keep();
  drawRooms();
  drawMembers();
  drawTyping();
}

function close(talk) {
  talks.delete(talk.name);
  talk.leave();
  select(talks.values().next().value || open("general"));
}

const keep = () => sessionStorage.setItem("chat", JSON.stringify({ name: me, rooms: [current.name, ...[...talks.keys()].filter((name) => name !== current.name)] }));

// listRooms hears from the server where anybody is. Each message is the whole list.
async function listRooms() {
  const room = hub.room("rooms");
  let offset = -1;
  const take = (m) => {
    if (m.offset < offset || !Array.isArray(m.content)) return;
    offset = m.offset;
    others = m.content;
    drawRooms();
  };
  const read = async () => (await asked(() => room.history({ limit: 1 }))).messages.forEach(take);
  room.on("message", take);
  room.on("lost", () => {
    offset = -1;
    read().catch(() => {});
  });
  await asked(() => room.join());
  await read();
}

function drawRooms() {
  const button = (name, unread = 0) => {
    const b = make("button");
    b.type = "button";
    b.dataset.room = name;
    b.append(make("span", "roomname", name));
    if (unread) {
      const badge = make("span", "unread", unread > 99 ? "99+" : unread);
      badge.setAttribute("aria-label", `${unread} unread`);
      b.append(badge);
    }
    const li = make("li");
    li.append(b);
    return li;
  };
  const focused = document.activeElement?.dataset?.room;
  const mine = [...talks.values()].map((talk) => button(talk.name, talk.unread));
  mine[[...talks.values()].indexOf(current)]?.firstChild.setAttribute("aria-current", "true");
  $("rooms").replaceChildren(...mine);
  const rest = others.filter((name) => !talks.has(name)).map((name) => button(name));
  $("others").replaceChildren(...rest);
  $("others-title").hidden = !rest.length;
  if (focused) document.querySelector(`[data-room="${CSS.escape(focused)}"]`)?.focus(); // it is another element now
  const unread = [...talks.values()].reduce((sum, talk) => sum + talk.unread, 0);
  document.title = unread ? `(${unread}) Chat` : "Chat";
}

function drawMembers() {
  const names = current.members.map((m) => short(m.data?.name) + (m.client_id === hub.id ? " (you)" : ""));
  $("here").textContent = names.length ? `${current.room.count} here` : "Here"; // of a thousand and more the list has a part
  $("members").replaceChildren(...names.sort().map((name) => make("li", "", name)));
}

function drawTyping() {
  const typists = [...current.typists.values()].map((t) => short(t.name));
  $("typing").textContent = typists.length ? `${typists.slice(0, 3).join(", ")} ${typists.length > 1 ? "are" : "is"} typing…` : "";
}

hub.on("state", (state, { delay, reason, refused }) => {
  $("state").dataset.state = state;
  $("state").textContent = {
    connecting: "connecting…",
    online: "online",
    waiting: refused ? "the server refuses this page: its log says why" : `away, back in ${Math.ceil(delay / 1000)} s`,
    closed: `closed: ${reason}`,
  }[state];
});

$("hello").addEventListener("submit", (e) => {
  e.preventDefault();
  const name = $("name").value.trim();
  if (name) enter(name);
});
$("join").addEventListener("submit", (e) => {
  e.preventDefault();
  const name = $("room").value.trim();
  if (!name) return;
  $("room").value = "";
  select(talks.get(name) || open(name));
  $("text").focus();
});
$("say").addEventListener("submit", (e) => {
  e.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  current.typed = 0;
  current.say(text);
});
$("text").addEventListener("input", () => current.iType());
$("leave").addEventListener("click", () => close(current));
for (const list of [$("rooms"), $("others")]) {
  list.addEventListener("click", (e) => {
    const name = e.target.closest("button")?.dataset.room;
    if (name) select(talks.get(name) || open(name));
  });
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !current?.unread) return;
  current.unread = 0;
  drawRooms();
});

if (stored.name) enter(stored.name, stored.rooms);
else $("name").focus();
