// What passes, as it passes: the newest of it on top. Only so many are shown, and drawn only as fast as anybody could
// look; how many were left out is said.

import { listen } from "./api.js";
import { clientLink, clock, h, json, name, number, roomLink, say } from "./elements.js";

const SHOWN = 200; // in the list
const A_FRAME = 10; // drawn at a time
const MOST_TEXT = 400; // characters of a content

/** The element of a tail of { room }, { client } or { user }, which listens as long as live is there. heard is told of each event's kind. */
export function tailOf(of, live, heard) {
  const list = h("ol", {}), log = h("div", { class: "tail", role: "log", "aria-live": "off", "aria-label": "What passes", tabindex: 0 }, list);
  const state = h("p", { class: "soft", role: "status" }), left = h("p", { class: "left", hidden: true });
  const content = h("input", { type: "checkbox", id: "tail-content", checked: true });
  const pause = h("button", { type: "button", "aria-pressed": "false" }, "Pause");
  let fresh = [], skipped = 0, lost = 0, passed = 0, drawing = false, paused = false, line = null;

  function hear(kind, data) {
    passed++;
    heard?.(kind);
    if (kind === "lost") lost += JSON.parse(data).count;
    else if (kind === "end") say(state, "The server is stopping.");
    else if (paused) skipped++;
    else {
      fresh.push([kind, data]);
      if (fresh.length > A_FRAME) {
        fresh.shift();
        skipped++;
      }
    }
    if (!drawing) {
      drawing = true;
      requestAnimationFrame(draw);
    }
  }

  function draw() {
    drawing = false;
    const rows = fresh.map(([kind, data]) => row(kind, JSON.parse(data), of)).reverse();
    fresh = [];
    list.prepend(...rows);
    while (list.childElementCount > SHOWN) list.lastChild.remove();
    left.hidden = !skipped && !lost;
    say(left, [skipped && number(skipped) + " left out here", lost && number(lost) + " left out by the server"].filter(Boolean).join(", ") + ": more than one can look at.");
  }

  async function begin() {
    line?.abort();
    const mine = line = new AbortController();
    say(state, "Connecting …");
    try {
      await listen({ ...of, content: String(content.checked) }, AbortSignal.any([mine.signal, live.signal]), hear, () => say(state, "Listening. What passes shows here."));
      say(state, "The line has ended.");
    } catch (e) {
      if (e.name !== "AbortError") say(state, e.status === 403 ? "Not heard: " + e.message + "." : "Not heard: " + e.message);
    }
    if (line !== mine || live.signal.aborted || state.textContent.includes("right")) return;
    setTimeout(() => line === mine && !live.signal.aborted && begin(), 3000);
  }

  let then = 0;
  live.every(1000, async () => {
    if (passed !== then || /a second/.test(state.textContent)) say(state, "Listening: " + number(passed - then) + " a second.");
    then = passed;
  });
  content.onchange = begin;
  pause.onclick = () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
  };
  begin();
  return h("div", {}, h("div", { class: "tools" }, state, h("label", { class: "check" }, content, "contents"), pause,
    h("button", { type: "button", onclick: () => { skipped = lost = 0; list.replaceChildren(); left.hidden = true; } }, "Clear")), left, log);
}

function row(kind, e, of) {
  const text = e.content === undefined ? "" : json(e.content);
  return h("li", { class: kind },
    h("time", { datetime: new Date(e.time).toISOString() }, clock(e.time)), h("span", { class: "kind" }, kind.replace("_", " ")),
    h("span", { class: "who" }, e.user ? name(e.user) : null, " ", e.client ? clientLink(e.client) : e.from ? name(e.from) : null,
      e.to ? h("span", {}, " to ", clientLink(e.to)) : null),
    of.room || !e.room ? null : h("span", {}, "in ", roomLink(e.room)),
    h("span", { class: "soft" }, [e.offset && "#" + e.offset, e.to_offset && "up to #" + e.to_offset, e.key && "key " + e.key, e.code && "code " + e.code, e.bytes && e.bytes + " B"].filter(Boolean).join(" · ")),
    text ? h("code", {}, text.length > MOST_TEXT ? text.slice(0, MOST_TEXT) + "…" : text) : null);
}
