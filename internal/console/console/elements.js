// How the console finds and makes its elements, and writes numbers and times.

export const $ = (id) => document.getElementById(id);

/** Makes all that is shown: names and contents of strangers go in as text only. Of props a class, and what else is an attribute. */
export function h(tag, props, ...content) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined && value !== null) e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...content.filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

/** Sets a text where it is another one: what a screen reader has read once it need not read again. */
export function say(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

export const name = (text) => h("bdi", { class: "name" }, text);

export const number = (n) => (n === 0 ? "0" : n < 10 ? String(Math.round(n * 10) / 10) : Math.round(n).toLocaleString("en"));

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return (n < 10 && i > 0 ? n.toFixed(1) : Math.round(n)) + " " + units[i];
}

export const plural = (n, what) => number(n) + " " + what + (n === 1 ? "" : "s");

/** How long ms are, roughly. */
export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  for (const [unit, of] of [["d", 86400], ["h", 3600], ["min", 60]]) if (s >= 2 * of || (s >= of && unit !== "min")) return Math.floor(s / of) + " " + unit;
  return s + " s";
}

/** A time, of Unix milliseconds, that goes on saying how long ago it was. */
export function ago(ms) {
  const e = h("time", { class: "ago", datetime: new Date(ms).toISOString(), title: new Date(ms).toLocaleString() });
  tell(e);
  return e;
}

function tell(e) {
  const passed = Date.now() - Date.parse(e.dateTime);
  say(e, passed < 1500 ? "just now" : span(passed) + " ago");
}

setInterval(() => document.hidden || document.querySelectorAll("time.ago").forEach(tell), 2000);

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** The text of a content, as JSON has it. */
export const json = (content) => (content === undefined ? "" : JSON.stringify(content));

export const roomLink = (room) => h("a", { href: "#/rooms/" + encodeURIComponent(room) }, name(room));
export const userLink = (user) => (user ? h("a", { href: "#/users/" + encodeURIComponent(user) }, name(user)) : "–");
export const clientLink = (id) => h("a", { href: "#/clients/" + encodeURIComponent(id), title: id, class: "mono" }, id.slice(0, 8));

/** A table: heads are texts, or [text, class]; a row is a list of cells. */
export function table(label, heads, rows, empty = "Nothing here.") {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  const cls = (i) => ({ class: Array.isArray(heads[i]) ? heads[i][1] : false });
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    h("table", {},
      h("thead", {}, h("tr", {}, ...heads.map((head, i) => h("th", { scope: "col", ...cls(i) }, Array.isArray(head) ? head[0] : head)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell, i) => h("td", cls(i), ...[cell].flat())))))));
}

/** A part of a view with a heading; more stands beside that. */
export function card(title, more, ...content) {
  return h("section", { class: "card" }, h("div", { class: "head" }, h("h3", {}, title), ...[more].flat()), ...content);
}

export const button = (text, onclick, cls) => h("button", { type: "button", class: cls, onclick }, text);
