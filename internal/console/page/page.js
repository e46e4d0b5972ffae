// The page at "/": what a newcomer tries Hubbub with. Here its parts are put together: the client that every server
// gives away, over a line that can be cut, a conversation, figures, code, and the inspector.

import { Hubbub } from "../hubbub.js";
import { copyCode, showCode } from "./code.js";
import { $, seconds } from "./elements.js";
import { Figures } from "./figures.js";
import { Line } from "./line.js";
import { clean, keep, myName } from "./names.js";
import { Protocol } from "./protocol.js";
import { Talk } from "./talk.js";
import { showTabs } from "./tabs.js";
import { Tokens } from "./tokens.js";
import { beside, ending, whyRefused } from "./trouble.js";
import { Typing } from "./typing.js";

const CUT = 5000; // ms
const WORDS = { connecting: "connecting", online: "connected", waiting: "reconnecting", closed: "closed" };

const room = new URLSearchParams(location.hash.slice(1)).get("room") || "lobby";
const line = new Line();
const tokens = new Tokens();
const hub = new Hubbub(beside("ws").href, { WebSocket: line.WebSocket, fetch: line.fetch, token: () => tokens.get(), maxDelay: 10e3 });
tokens.of(hub);
new Protocol(hub, line, room); // it is the first to see a frame
const figures = new Figures(hub, line, room);
const talk = new Talk(hub, line, room, myName());
const typing = new Typing(hub, talk, () => figures.now());

// --- the connection's state ---

let trouble = ""; // why it can't connect, as far as HTTP tells
let outside = ""; // why it isn't in the room
let counting = 0;
let failures = 0, everOnline = false;

hub.on("state", (state, detail) => {
  clearInterval(counting);
  $("wait").textContent = "";
  if (state === "online") {
    everOnline = true;
    failures = 0;
    show("", outside);
  }
  if (state === "waiting") {
    countDown(detail.delay);
    if (detail.code === 4401) {
      tokens.ask(detail.reason);
      showCode(room, talk.name, true);
    } else if (!line.isCut) line.opened ? gone(detail) : diagnose();
  }
  if (state === "closed") closed(detail);
  if (state !== "connecting" || !trouble) showState(state);
});

function showState(state) {
  if (state === "connecting" && everOnline) state = "waiting"; // a screen reader need not hear of each try
  const words = line.isCut ? "your line is cut" : tokens.wanted ? "needs a token" : state === "waiting" && trouble ? "can't connect" : WORDS[state];
  $("state").dataset.state = state;
  if ($("state").textContent !== words) $("state").textContent = words;
}

// The seconds stand outside of the status, so that a screen reader does not count along.
function countDown(delay) {
  const due = Date.now() + delay;
  const tell = () => { $("wait").textContent = line.isCut || tokens.wanted ? "" : "again in " + Math.max(0, Math.ceil((due - Date.now()) / 1000)) + " s"; };
  tell();
  counting = setInterval(tell, 1000);
}

async function diagnose() {
  const found = await whyRefused(++failures < 3 && everOnline);
  if (hub.state === "online" || line.isCut || (found && line.opened)) return;
  show(found, outside);
  if (hub.state === "waiting") showState("waiting");
}

function show(noLine, noRoom) {
  trouble = noLine;
  outside = noRoom;
  const text = trouble || outside;
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function closed(detail) {
  if (tokens.refused(detail)) return;
  show("The connection has ended for good: " + ending(detail) + ". Load the page anew to try again.", outside);
}

function gone(detail) {
  line.opened = false; // it is told once
  talk.log.note("The line is gone, " + ending(detail) + ". What you say now waits for it.");
}

// --- who one is ---

const showMe = () => {
  $("name").value = talk.name;
  showCode(room, talk.name, hub.user);
};

async function rename() {
  const name = clean($("name").value) || talk.name;
  if (name !== talk.name) await talk.rename(keep("name", name)).catch((e) => show(trouble, "You are out of the room: " + e.message));
  showMe();
}

$("name").onchange = rename;
$("who").onsubmit = (e) => {
  e.preventDefault();
  rename();
  $("text").focus();
};

const off = hub.on("state", async (state) => {
  if (state !== "online") return;
  off();
  if (hub.user) { // a token says who this is, and nobody can choose
    talk.name = clean(hub.user) || talk.name;
    hub.room(room, { data: { name: talk.name } });
    $("name").readOnly = true;
    showMe();
  }
  try {
    await talk.join();
    await typing.join();
  } catch (e) {
    show(trouble, "You can't be in the room “" + room + "”: " + e.message + ". A room by another name: put #room=NAME behind this page's address.");
  }
});
talk.room.on("left", (why) => show(trouble, "You were taken out of the room: " + why + ". Load the page anew to try again."));

// --- what one says ---

const text = $("text");

function say() {
  if (!text.value.trim()) return;
  talk.say(text.value);
  text.value = "";
  typing.said();
  talk.log.toEnd();
}

$("send").onsubmit = (e) => {
  e.preventDefault();
  say();
};
let shift = false; // with it a line break is one

text.onkeydown = (e) => { shift = e.shiftKey; };
text.onbeforeinput = (e) => { // unlike a key, it is right on a phone's keyboard too, and where a word is still composed
  if (e.inputType !== "insertLineBreak" || shift) return;
  e.preventDefault();
  say();
};
text.oninput = () => typing.typed(text.value !== "");

// --- the bad line ---

$("cut").onclick = () => {
  $("cut").disabled = true;
  const due = performance.now() + CUT;
  const count = () => { $("cut").textContent = "Back in " + seconds(Math.max(0, due - performance.now())); };
  $("catch-up").textContent = "Your line is cut. Say something here and in the other window.";
  line.cut();
  showState(hub.state);
  count();
  const counting = setInterval(count, 200);
  setTimeout(() => {
    clearInterval(counting);
    line.mend();
    $("cut").disabled = false;
    $("cut").textContent = "Cut my line for 5 s";
    showState(hub.state);
    hub.check();
  }, CUT);
};

$("slow").onclick = () => {
  line.isSlow = !line.isSlow;
  $("slow").setAttribute("aria-checked", String(line.isSlow));
  $("catch-up").textContent = line.isSlow ? "Your line is slow now, as on a phone at the edge of its net: see the round trip, and the marks below what you say." : "";
};

// --- the rest ---

$("copy").onclick = copyCode;
$("second").href = location.pathname + (room === "lobby" ? "" : "#room=" + encodeURIComponent(room));
// Who goes to another page is gone: a browser may keep this one aside with its connection open, and would seem here.
addEventListener("pagehide", () => hub.close());
addEventListener("pageshow", (e) => e.persisted && location.reload());
addEventListener("hashchange", () => location.reload()); // another room, or a token
showTabs();
showMe();
if (!matchMedia("(pointer: coarse)").matches) text.focus(); // on a phone it would bring the keyboard up
