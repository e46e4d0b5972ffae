// Who is connected: clients by id, users by name, and one of them with its rooms.

import { call } from "./api.js";
import { acting } from "./ask.js";
import { ago, bytes, card, clientLink, h, name, number, plural, roomLink, say, table, userLink } from "./elements.js";
import { endings } from "./room.js";
import { Pager } from "./rooms.js";
import { tailOf } from "./tail.js";

const EVERY = 4000, PAGE = 50;

export function showClients(view, h2, live) {
  const who = h("input", { id: "who", type: "search", placeholder: "A user's name, or a client's id", autocomplete: "off", spellcheck: "false" });
  const find = h("form", { class: "tools" }, h("label", { for: "who" }, "Who"), who, h("button", {}, "Show"));
  find.onsubmit = (e) => {
    e.preventDefault();
    const text = who.value.trim();
    if (text) location.hash = (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text) ? "#/clients/" : "#/users/") + encodeURIComponent(text);
  };
  view.append(h2, find, h("div", { class: "columns" },
    listOf("Clients", "clients", live, ["Client", "User", "State"], (c) => [clientLink(c.client), userLink(c.user), stateOf(c)], (c) => c.client, "Nobody is connected."),
    listOf("Users", "users", live, ["User", ["Clients", "n"]], (u) => [userLink(u.user), number(u.clients)], (u) => u.user, "Nobody who is connected has a name.")));
}

const stateOf = (c) => (c.parked ? h("span", { class: "wait" }, "may come back") : h("span", { class: "good" }, "connected"));

function listOf(title, path, live, heads, row, last, empty) {
  const list = h("div", { "aria-busy": true }, h("p", { class: "empty" }, "Loading …")), trouble = h("div", {});
  const pager = new Pager(() => load());
  const load = live.every(EVERY, async () => {
    const at = pager.at, got = await live.get([path], { after: at, limit: PAGE });
    if (at !== pager.at) return;
    list.removeAttribute("aria-busy");
    const all = got[path];
    pager.show(all.length, got.more && all.length && last(all.at(-1)));
    if (!list.contains(document.activeElement)) list.replaceChildren(table(title, heads, all.map(row), empty));
  }, trouble);
  return card(title, null, trouble, list, pager.e);
}

export function showClient(view, h2, live, id) {
  const about = h("p", { class: "soft", role: "status" }, "Loading …"), trouble = h("div", {}), rooms = h("div", {}), acts = h("div", { class: "acts" }, ...endings("", id, () => load()));
  h2.replaceChildren("Client ", h("span", { class: "mono" }, id));
  const load = live.every(EVERY, async () => {
    try {
      const c = await live.get(["clients", id]);
      about.replaceChildren(c.user ? h("span", {}, "user ", userLink(c.user)) : "no user", " · ", stateOf(c), " · since ", ago(c.since), " · ",
        c.address ? "from " + c.address : "no address", " · ", bytes(c.unsent_bytes) + " unsent");
      if (rooms.contains(document.activeElement)) return;
      rooms.replaceChildren(table("Its rooms", ["Room", ["Do", "side"]], c.rooms.map((room) => [roomLink(room), h("div", { class: "acts" }, endings(room, id, () => { document.activeElement?.blur(); load(); })[0])]), "It is in no room."));
      acts.hidden = false;
    } catch (e) {
      if (e.status !== 404) throw e;
      acts.hidden = true;
      say(about, "There is no such client now.");
      rooms.replaceChildren();
    }
  }, trouble);
  view.append(h("p", { class: "crumb" }, h("a", { href: "#/clients" }, "Clients")), h("div", { class: "head" }, h2, acts), about, trouble,
    h("div", { class: "columns wide" }, card("What it does", null, tailOf({ client: id }, live)), card("Rooms", null, rooms)));
}

export function showUser(view, h2, live, user) {
  const about = h("p", { class: "soft", role: "status" }, "Loading …"), trouble = h("div", {}), clients = h("div", {});
  const close = acting("Close all", () => call("DELETE", ["users", user]), { question: "Close all clients of this user?", detail: "Their connections end with 4500, and their sessions can't be resumed.", verb: "Close all" }, "They are closed.", () => load());
  h2.replaceChildren("User ", name(user));
  const load = live.every(EVERY, async () => {
    try {
      const u = await live.get(["users", user]);
      say(about, plural(u.clients.length, "client"));
      close.hidden = false;
      if (!clients.contains(document.activeElement)) clients.replaceChildren(table("Its clients", ["Client", "State", ["Do", "side"]], u.clients.map((c) => [clientLink(c.client), stateOf(c), h("div", { class: "acts" }, ...endings("", c.client, () => { document.activeElement?.blur(); load(); }))])));
    } catch (e) {
      if (e.status !== 404) throw e;
      close.hidden = true;
      say(about, "Nobody of this name is connected.");
      clients.replaceChildren();
    }
  }, trouble);
  view.append(h("p", { class: "crumb" }, h("a", { href: "#/clients" }, "Clients")), h("div", { class: "head" }, h2, h("div", { class: "acts" }, close)), about, trouble,
    h("div", { class: "columns wide" }, card("What they do", null, tailOf({ user }, live)), card("Clients", null, clients)));
}
