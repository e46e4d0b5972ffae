// A room: what passes, who is in it, what it keeps, and what it may do and why.

import { call } from "./api.js";
import { acting } from "./ask.js";
import { ago, bytes, card, clientLink, h, json, name, number, plural, say, span, table, userLink } from "./elements.js";
import { Pager } from "./rooms.js";
import { tailOf } from "./tail.js";

const EVERY = 4000, PAGE = 50, MOST_TEXT = 300;

export function showRoom(view, h2, live, room) {
  const about = h("p", { class: "soft", role: "status" }, "Loading …"), trouble = h("div", {});
  h2.replaceChildren(name(room));
  const policy = policyOf(room, live), members = membersOf(room, live), kept = keptOf(room, live);
  live.every(EVERY, async () => {
    try {
      const r = await live.get(["rooms", room], { user: policy.user() });
      say(about, [plural(r.members, "member"), number(r.rate) + " messages/s", r.epoch ? "newest #" + r.offset + " of " + r.epoch : "keeps no history"].join(" · "));
      policy.show(r);
      kept.knows(r);
    } catch (e) {
      if (e.status !== 404) throw e;
      say(about, "There is no such room now: nobody is in it, and it keeps nothing. What is published here shows all the same.");
      policy.show(null);
    }
  }, trouble);
  view.append(h("p", { class: "crumb" }, h("a", { href: "#/rooms" }, "Rooms")), h2, about, trouble,
    h("div", { class: "columns wide" },
      h("div", {}, card("Live", null, tailOf({ room }, live)), publishTo(room), kept.e),
      h("div", {}, members.e, policy.e)));
}

function publishTo(room) {
  const content = h("textarea", { id: "content", rows: 2, spellcheck: "false" }), from = h("input", { id: "from", maxlength: 64, placeholder: "server", spellcheck: "false" });
  const as = h("p", { class: "soft", role: "status" });
  const value = () => {
    try {
      JSON.parse(content.value);
      return content.value; // as it is: numbers too large for JavaScript stay
    } catch {
      return JSON.stringify(content.value);
    }
  };
  content.oninput = () => say(as, content.value ? (value() === content.value ? "It goes as JSON." : "It is no JSON: it goes as a text.") : "");
  const go = acting("Publish", () => {
    const body = `{"room":${JSON.stringify(room)}${from.value ? ',"from":' + JSON.stringify(from.value) : ""},"content":${value()}}`;
    return call("POST", ["publish"], { body });
  }, {}, (at) => (at.offset ? "Published as #" + at.offset + "." : "Published."), () => {
    content.value = "";
    say(as, "");
  });
  go.className = "main";
  return card("Publish", null,
    h("label", { for: "content" }, "Content, JSON or a text"), content,
    h("div", { class: "row" }, h("label", { for: "from" }, "From"), from, go, as));
}

/** The buttons to take a client out of a room, and to close it. */
export function endings(room, client, after) {
  const short = client.slice(0, 8);
  return [
    room && acting("Remove", () => call("DELETE", ["rooms", room, "members", client]), { question: "Take " + short + " out of this room?", detail: "It is told so, and may join again where the policy lets it.", verb: "Remove" }, short + " is out of the room.", after),
    acting("Close", () => call("DELETE", ["clients", client]), { question: "Close " + short + "?", detail: "Its connection ends with 4500, and its session can't be resumed. Most clients don't come back by themselves.", verb: "Close" }, short + " is closed.", after),
  ].filter(Boolean);
}

function membersOf(room, live) {
  const list = h("div", { "aria-busy": true }, h("p", { class: "empty" }, "Loading …")), trouble = h("div", {});
  const pager = new Pager(() => load());
  const load = live.every(EVERY, async () => {
    const at = pager.at;
    const { members, more } = await live.get(["rooms", room, "presence"], { after: at, limit: PAGE });
    if (at !== pager.at) return;
    list.removeAttribute("aria-busy");
    if (!members) return list.replaceChildren(h("p", { class: "empty" }, "This room tells how many are in it, not who: its policy has no “presence: full”."));
    pager.show(members.length, more && members.at(-1)?.client_id);
    if (list.contains(document.activeElement)) return; // a button isn't taken away under one's hands
    list.replaceChildren(table("Members", ["Client", "User", "Data", ["Do", "side"]],
      members.map((m) => [clientLink(m.client_id), userLink(m.user), h("code", {}, json(m.data).slice(0, MOST_TEXT)), h("div", { class: "acts" }, ...endings(room, m.client_id, () => { document.activeElement?.blur(); load(); }))]), "Nobody is here."));
  }, trouble);
  return { e: card("Members", null, trouble, h("div", { class: "bounded" }, list), pager.e) };
}

function keptOf(room, live) {
  const list = h("div", {}, h("p", { class: "empty" }, "Loading …")), older = h("button", { type: "button", hidden: true }, "Older");
  let shown = "", before = "", known = null, pages = [];
  const draw = () => list.replaceChildren(table("History", [["#", "n"], "When", "From", "Content", ["Do", "side"]], pages.map((m) => [
    String(m.offset), ago(m.time), m.user ? userLink(m.user) : m.from.length === 36 ? clientLink(m.from) : name(m.from), h("code", {}, json(m.content).slice(0, MOST_TEXT)),
    acting("Take back", () => call("DELETE", ["rooms", room, "history", String(m.offset)], { query: { epoch: known.epoch } }),
      { question: "Take back #" + m.offset + "?", detail: "It is in no page and no recovery any more, and members are told to forget it.", verb: "Take back" }, "#" + m.offset + " is taken back.", () => { pages = pages.filter((o) => o !== m); draw(); }),
  ]), "It keeps nothing now."));
  const load = async (more) => {
    const page = await live.get(["rooms", room, "history"], { limit: 20, before: more ? before : undefined });
    const newestFirst = page.messages.reverse();
    pages = more ? [...pages, ...newestFirst] : newestFirst;
    before = pages.length ? page.epoch + ":" + pages.at(-1).offset : "";
    older.hidden = !before || !page.more;
    draw();
  };
  older.onclick = () => load(true).catch(() => {});
  const all = acting("Take all back", () => call("DELETE", ["rooms", room, "history"]), { question: "Take back all that this room keeps?", detail: "Nobody can look back or recover it, and members are told to forget it.", verb: "Take all back" }, "All is taken back.", () => load());
  return {
    e: card("History", all, h("div", { class: "bounded" }, list), h("div", { class: "pager" }, older)),
    /** Loads what is new, while one looks at the newest and has nothing in hand. */
    async knows(r) {
      known = r;
      all.hidden = !r.epoch;
      if (!r.epoch) {
        list.replaceChildren(h("p", { class: "empty" }, "This room keeps no messages."));
        return;
      }
      const at = r.epoch + ":" + r.offset;
      if (at === shown || pages.length > 20 || list.contains(document.activeElement)) return;
      shown = at;
      await load().catch((e) => e.name === "AbortError" || list.replaceChildren(h("p", { class: "empty" }, e.message)));
    },
  };
}

// --- the policy ---

const FIELDS = {
  history: ["History", (p) => (p.history ? `${number(p.history.messages)} messages, ${span(p.history.age_ms)}, ${bytes(p.history.bytes)}` : "none")],
  presence: ["Presence", (p) => p.presence],
  join: ["Who may join", (p) => p.join],
  read: ["Who may read", (p) => p.read],
  publish: ["Who may publish", (p) => p.publish],
  include_sender: ["Sender gets its own", (p) => (p.include_sender ? "yes" : "no")],
  slow_consumer: ["A slow member", (p) => p.slow_consumer],
  idle_ttl_ms: ["Kept when empty", (p) => (p.idle_ttl_ms ? span(p.idle_ttl_ms) : "no")],
};

function reason({ by, match, rule }) {
  const where = rule === undefined ? null : [h("code", {}, "rooms[" + rule + "]"), " ", name("“" + match + "”")];
  if (by === "rule") return h("span", {}, ...where);
  const otherwise = by === "setting" ? h("code", {}, "--slow-consumer") : by === "built_in" ? h("span", {}, "built in for ", name("“" + match + "”")) : h("span", {}, "the default");
  return h("span", { class: "soft" }, otherwise, ...(where ? ["; ", ...where, " doesn't say"] : []));
}

function policyOf(room, live) {
  const list = h("div", {}, h("p", { class: "empty" }, "Loading …"));
  const user = h("input", { id: "as-user", placeholder: "no name", spellcheck: "false", autocomplete: "off" });
  let shown = "";
  const show = (r) => {
    const text = JSON.stringify(r && [r.policy, r.why]);
    if (text === shown) return;
    shown = text;
    list.replaceChildren(r ? table("Policy", ["What", "Is", "Why"], r.why.map((w) => [FIELDS[w.field][0], h("strong", {}, FIELDS[w.field][1](r.policy)), reason(w)])) : h("p", { class: "empty" }, "It has one as soon as somebody is in it."));
  };
  user.onchange = () => live.get(["rooms", room], { user: user.value }).then(show, () => {});
  return { show, user: () => user.value, e: card("Policy, and why", null, h("div", { class: "row" }, h("label", { for: "as-user" }, "For the user"), user), list) };
}
