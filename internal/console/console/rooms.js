// The rooms: a page at a time, as the server has them in order; it may have a hundred thousand.

import { h, number, plural, roomLink, say, table } from "./elements.js";

const PAGE = 50, EVERY = 4000;
const ORDERS = [["members", "Most members"], ["rate", "Most messages"], ["name", "By name"]];

const chosen = { order: "members", contains: "" }; // they outlive the view

export function showRooms(view, h2, live) {
  const search = h("input", { id: "search", type: "search", placeholder: "What is in the name", autocomplete: "off", spellcheck: "false" });
  const order = h("select", { id: "order" }, ...ORDERS.map(([value, text]) => h("option", { value }, text)));
  const list = h("div", { "aria-busy": true }, h("p", { class: "empty" }, "Loading …")), trouble = h("div", {}), count = h("p", { class: "soft", role: "status" });
  const pager = new Pager(() => load());
  search.value = chosen.contains;
  order.value = chosen.order;
  view.append(h2,
    h("div", { class: "tools" }, h("label", { for: "search" }, "Search"), search, h("label", { for: "order" }, "Order"), order, count),
    trouble, h("section", { class: "card" }, list, pager.e));

  const load = live.every(EVERY, async () => {
    const at = pager.at, asked = JSON.stringify(chosen);
    const { rooms, more } = await live.get(["rooms"], { contains: chosen.contains, order: chosen.order, after: at, limit: PAGE });
    if (at !== pager.at || asked !== JSON.stringify(chosen)) return void setTimeout(load); // it is of what was asked before
    const last = rooms.at(-1);
    pager.show(rooms.length, more && last && (chosen.order === "name" ? last.room : last[chosen.order] + ":" + last.room));
    list.removeAttribute("aria-busy");
    list.replaceChildren(table("Rooms", ["Room", ["Members", "n"], ["Messages/s", "n"], ["Newest", "n"]],
      rooms.map((r) => [roomLink(r.room), number(r.members), number(r.rate), r.offset === undefined ? "–" : number(r.offset)]),
      chosen.contains ? "No room has this in its name." : pager.first ? "There are no rooms: nobody is in one, and nothing is kept." : "There are no more."));
  }, trouble);

  live.watch((figures) => say(count, plural(figures.rooms, "room")));
  let waiting = 0;
  search.oninput = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      chosen.contains = search.value;
      pager.begin();
      load();
    }, 200);
  };
  order.onchange = () => {
    chosen.order = order.value;
    pager.begin();
    load();
  };
}

/** The pages of a list, each of which begins behind the last one of the page before. */
export class Pager {
  constructor(load) {
    this._befores = [""];
    this._back = h("button", { type: "button", onclick: () => this._go(() => this._befores.pop(), load) }, "Back");
    this._on = h("button", { type: "button", onclick: () => this._go(() => this._befores.push(this._next), load) }, "More");
    this._where = h("span", { class: "soft", role: "status" });
    this.e = h("div", { class: "pager" }, this._back, this._where, this._on);
    this.show(0, "");
  }

  /** What the page shown comes behind. */
  get at() { return this._befores.at(-1); }

  get first() { return this._befores.length === 1; }

  begin() { this._befores = [""]; }

  _go(change, load) {
    change();
    this._on.disabled = this._back.disabled = true;
    load();
  }

  /** Says how many are on this page, and what the next comes behind, if there is one. */
  show(n, next) {
    this._next = next;
    this._on.disabled = !next;
    this._back.disabled = this.first;
    this.e.hidden = this.first && !next;
    say(this._where, "Page " + this._befores.length);
  }
}
