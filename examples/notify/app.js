import { Hubbub } from "./hubbub.js";

const $ = (id) => document.getElementById(id);
const notices = new Map(); // by id, which grows
let read = 0; // up to this id they are read
let hub;

const say = (text) => { $("says").textContent = text; };

// ask calls the backend, and says what it has against it.
async function ask(method, path, body) {
  const answer = await fetch(path, body && { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), { status: answer.status });
  return answer;
}

// start shows the notices of whoever is signed in, or the form to sign in.
async function start() {
  const old = hub;
  hub = undefined;
  old?.close();
  let me;
  try {
    me = await (await ask("GET", "me")).json();
  } catch {
    say("The backend does not answer.");
    return setTimeout(start, 2000);
  }
  notices.clear();
  read = 0;
  $("sign-in").hidden = !!me.user;
  $("inbox").hidden = $("state").hidden = !me.user;
  $("user").textContent = me.user ?? "";
  show();
  if (me.user) connect(me);
  else $("name").focus();
}

async function connect({ user, hubbub }) {
  hub?.close();
  const here = (hub = new Hubbub(hubbub, { token }));
  here.on("state", (state) => {
    if (here !== hub) return;
    $("state").textContent = state;
    $("state").className = state;
    // Closed for good: signed out in another tab, or the backend began anew. It knows who we are, if anybody.
    if (state === "closed") setTimeout(() => here === hub && start(), 1000);
  });
  here.on("direct", ({ content }) => say(content.say));
  const room = here.room(`user:${user}`);
  room.on("message", ({ content }) => take(content));
  // What was missed comes by itself. Where nobody can prove that it is all, the backend knows.
  room.on("lost", () => look(here));
  room.on("gap", () => look(here));
  try {
    await room.join({ timeout: Infinity });
  } catch {
    return; // the hub is closed
  }
  await look(here); // joined first: what comes meanwhile is a message
}

// token says to Hubbub who this is. Who isn't signed in any more gets none.
async function token() {
  try {
    return await (await ask("GET", "token")).text();
  } catch (e) {
    if (e.status === 401) start();
    throw e;
  }
}

// look reads all notices. A message may bring one of them too: by its id it is the same.
async function look(from) {
  try {
    const box = await (await ask("GET", "box")).json();
    if (from !== hub) return;
    for (const notice of box.notices) notices.set(notice.id, notice);
    take(box);
  } catch {
    setTimeout(() => from === hub && look(from), 2000);
  }
}

function take({ notice, read: upTo = 0 }) {
  if (notice) notices.set(notice.id, notice);
  read = Math.max(read, upTo);
  show();
}

function show() {
  const all = [...notices.values()].sort((a, b) => b.id - a.id);
  const unread = all.filter(({ id }) => id > read).length;
  $("badge").textContent = unread ? `${unread} new` : "";
  $("badge").hidden = !unread;
  document.title = (unread ? `(${unread}) ` : "") + "Notices · Hubbub";
  $("notices").replaceChildren(...all.map(({ id, from, text, time }) => {
    const line = document.createElement("li");
    const small = document.createElement("small");
    small.textContent = `${from}, ${new Date(time).toLocaleTimeString()}`;
    line.append(text, small);
    line.classList.toggle("new", id > read);
    return line;
  }));
}

// on has a form or a button do something that may fail.
function on(id, kind, fn) {
  $(id).addEventListener(kind, async (e) => {
    e.preventDefault();
    say("");
    try {
      await fn();
    } catch (error) {
      say(error.message);
    }
  });
}

on("sign-in", "submit", async () => {
  await ask("POST", "sign-in", { name: $("name").value });
  await start();
});
on("sign-out", "click", async () => {
  await ask("POST", "sign-out", {});
  await start();
});
on("read", "click", () => ask("POST", "read", { upTo: Math.max(0, ...notices.keys()) }));
on("write", "submit", async () => {
  await ask("POST", "notify", { to: $("to").value, text: $("text").value });
  $("text").value = "";
  say("Sent.");
});

start();
