// The console at "/console": who runs the server sees what it does, and reaches in. Here are the key, the state in the
// head, and which view is shown; each view is a module.

import { call, get, key, onKeyTrouble } from "./api.js";
import { prepare } from "./ask.js";
import { showClient, showClients, showUser } from "./clients.js";
import { $, h, say } from "./elements.js";
import { showNodes, showSettings } from "./nodes.js";
import { showOverview } from "./overview.js";
import { showRoom } from "./room.js";
import { showRooms } from "./rooms.js";

const EVERY = 2000; // ms, for the figures in the head

// Live is what a view has as long as it is shown.
class Live {
  _over = new AbortController();
  signal = this._over.signal;

  end() { this._over.abort(); }

  /** Asks the API; not for a view that is gone. */
  get(path, query) { return get(path, query, this.signal); }

  /** Calls fn now, and each ms while the page is seen. Where it fails, trouble shows why, until it works again. */
  every(ms, fn, trouble) {
    let timer = 0, busy = false;
    const run = async () => {
      clearTimeout(timer);
      if (busy || this.signal.aborted) return;
      busy = true;
      try {
        if (!document.hidden) {
          await fn();
          trouble?.replaceChildren();
        }
      } catch (e) {
        if (e.name !== "AbortError") trouble?.replaceChildren(h("p", { class: "trouble", role: "alert" }, e.message));
      }
      busy = false;
      if (!this.signal.aborted) timer = setTimeout(run, ms);
    };
    this.signal.addEventListener("abort", () => clearTimeout(timer));
    run();
    return run;
  }
}

// --- the figures, which the head and the overview show ---

let figures = null, before = null;
const watchers = new Set();

/** Calls fn with the newest figures, and those before them, now and as they come. */
function watch(fn, signal) {
  watchers.add(fn);
  signal.addEventListener("abort", () => watchers.delete(fn));
  if (figures) fn(figures, before);
}

async function look() {
  try {
    const now = await get(["figures"]);
    before = figures && figures.started === now.started ? figures : null;
    figures = now;
    state(now.not_ready ? "wait" : "good", now.not_ready ? "not ready: " + now.not_ready : "ready");
    say($("node"), now.node + " · " + now.version);
    for (const fn of watchers) fn(figures, before);
  } catch (e) {
    if (e.name !== "AbortError") state("bad", e.status ? e.message : "no answer");
  }
}

function state(kind, text) {
  $("state").dataset.state = kind;
  say($("state"), text);
}

// --- the key ---

let head = null, live = null;

function begin() {
  $("enter").hidden = true;
  $("nav").hidden = $("forget").hidden = false;
  head ??= new Live();
  head.every(EVERY, look);
  route();
}

function askForKey(why) {
  head?.end();
  live?.end();
  head = live = figures = before = null;
  key.forget();
  $("view").replaceChildren();
  $("nav").hidden = $("forget").hidden = true;
  $("enter").hidden = false;
  state("none", "");
  say($("node"), "");
  say($("wrong"), why);
  $("key").focus();
}

$("enter").onsubmit = async (e) => {
  e.preventDefault();
  const text = $("key").value.trim();
  if (!/^[\x21-\x7e]+$/.test(text)) return say($("wrong"), "A key has visible ASCII characters alone.");
  key.keep(text);
  try {
    await call("GET", ["figures"]);
    $("key").value = "";
    say($("wrong"), "");
    begin();
  } catch (e) {
    if (e.status !== 401 && e.code !== "api_off") { // these are told by onKeyTrouble
      key.forget();
      say($("wrong"), e.message);
    }
  }
};
$("forget").onclick = () => askForKey("");
onKeyTrouble((e) => askForKey(e.status === 401 ? "The server doesn't know this key." : e.message));

// --- the views ---

const views = [
  [/^\/?$/, "Overview", showOverview],
  [/^\/rooms$/, "Rooms", showRooms],
  [/^\/rooms\/(.+)$/, "Rooms", showRoom],
  [/^\/clients$/, "Clients", showClients],
  [/^\/clients\/(.+)$/, "Clients", showClient],
  [/^\/users\/(.+)$/, "Clients", showUser],
  [/^\/nodes$/, "Nodes", showNodes],
  [/^\/settings$/, "Settings", showSettings],
];

function named(text) {
  try {
    return decodeURIComponent(text || "");
  } catch {
    return text;
  }
}

function route(moved) {
  if (!key.get()) return askForKey("");
  live?.end();
  live = new Live();
  live.watch = (fn) => watch(fn, live.signal);
  const path = location.hash.slice(1);
  const [pattern, title, show] = views.find(([pattern]) => pattern.test(path)) || views[0];
  const what = named(pattern.exec(path)?.[1]);
  for (const a of $("nav").children) {
    if (a.textContent === title) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  document.title = (what || title) + " · Hubbub console";
  const h2 = h("h2", { tabindex: -1 }, what ? "" : title);
  $("view").replaceChildren();
  show($("view"), h2, live, what);
  if (moved) {
    h2.focus();
    scrollTo(0, 0);
  }
}

addEventListener("hashchange", () => route(true));
prepare();
if (key.get()) begin();
else askForKey("");
