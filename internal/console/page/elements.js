// How the page finds and makes its elements.

export const $ = (id) => document.getElementById(id);

/** Makes all that is shown; a stranger's text goes in as text only. */
export function element(tag, className, ...content) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...content);
  return e;
}

/** Time of day, of Unix milliseconds. */
export function clock(ms) {
  const time = new Date(ms);
  if (isNaN(time)) return element("time");
  const e = element("time", "", time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  e.dateTime = time.toISOString();
  e.title = time.toLocaleString();
  return e;
}

export const seconds = (ms) => (Math.round(ms / 100) / 10).toFixed(1) + " s";

export const plural = (n, what) => n + " " + what + (n === 1 ? "" : "s");
