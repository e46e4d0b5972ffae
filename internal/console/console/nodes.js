// The nodes of the cluster, and the settings of the one that is asked.

import { ago, card, h, name, number, table } from "./elements.js";

export function showNodes(view, h2, live) {
  const list = h("div", { "aria-busy": true }, h("p", { class: "empty" }, "Loading …")), stores = h("div", {}), trouble = h("div", {});
  view.append(h2, trouble, h("section", { class: "card" }, list), stores);
  live.every(3000, async () => {
    const got = await live.get(["nodes"]);
    list.removeAttribute("aria-busy");
    const differs = (n) => n.policies !== got.nodes[0].policies;
    list.replaceChildren(got.cut ? h("p", { class: "trouble" }, "This node is cut off from the others: they are the last ones that it knew of.") : "",
      got.nodes.some(differs) ? h("p", { class: "trouble" }, "Nodes have other policies of rooms than this one: give all the same rooms; the log names the rule.") : "",
      table("Nodes", ["Node", "State", "Role", "Version", "Started", ["Clients", "n"], ["Parked", "n"], ["Connections", "n"], ["Rooms", "n"], "Policies"], got.nodes.map((n, i) => [
        h("span", {}, name(n.name), i === 0 ? h("span", { class: "soft" }, " asked") : null),
        n.not_ready ? h("span", { class: "wait" }, "not ready: " + n.not_ready) : n.in ? h("span", { class: "good" }, "ready") : h("span", { class: "wait" }, "not in yet"),
        n.role + (n.store ? " " + n.store : ""), n.version, ago(n.started), number(n.clients), number(n.parked), number(n.connections), number(n.rooms),
        h("span", { class: "mono" + (differs(n) ? " bad" : "") }, n.policies.slice(0, 8) + (differs(n) ? " differs" : ""))])));
    stores.replaceChildren(got.stores_error ? h("p", { class: "trouble" }, "The stores don't answer: " + got.stores_error)
      : got.stores ? card("Stores", null, h("pre", { tabindex: 0, role: "region", "aria-label": "Stores" }, JSON.stringify(got.stores, null, 2))) : "");
  }, trouble);
}

export function showSettings(view, h2, live) {
  const search = h("input", { id: "search", type: "search", placeholder: "What is in the name", autocomplete: "off", spellcheck: "false" });
  const list = h("div", { "aria-busy": true }, h("p", { class: "empty" }, "Loading …")), trouble = h("div", {});
  const changed = h("input", { type: "checkbox" });
  let settings = [];
  const draw = () => {
    const some = settings.filter((s) => s.name.includes(search.value.trim()) && !(changed.checked && s.from === "the default"));
    list.replaceChildren(table("Settings", ["Setting", "Value", "From"], some.map((s) => [h("code", {}, s.name), s.hidden ? h("span", { class: "soft" }, "set, not shown") : h("code", {}, s.value || "–"),
      s.from === "the default" ? h("span", { class: "soft" }, s.from) : s.from]), settings.length ? "No setting is so." : "This program shows none of its settings."));
  };
  search.oninput = changed.onchange = draw;
  view.append(h2, h("div", { class: "tools" }, h("label", { for: "search" }, "Search"), search, h("label", { class: "check" }, changed, "only what was set")), trouble, h("section", { class: "card" }, list));
  live.every(10e3, async () => {
    ({ settings } = await live.get(["settings"]));
    settings.sort((a, b) => (b.name === "log-level") - (a.name === "log-level"));
    list.removeAttribute("aria-busy");
    draw();
  }, trouble);
}
