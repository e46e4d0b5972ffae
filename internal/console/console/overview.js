// The overview: what the server does now, and what it did in the last hour, from samples that it keeps itself.

import { Chart, gauge } from "./charts.js";
import { bytes, card, clock, h, number, span, table } from "./elements.js";

const HOUR = 3600e3;

export function showOverview(view, h2, live) {
  const tiles = h("dl", { class: "tiles", "aria-busy": true }), workers = h("div", {}), troubles = h("div", {}), trouble = h("div", {});
  const rows = h("div", {});
  let samples = [], every = 10;
  const rate = (n) => n / every, perSecond = (n) => number(n) + "/s";
  const charts = [
    new Chart("Clients", [{ name: "connected", of: (s) => s.clients }], number),
    new Chart("Messages", [{ name: "to clients", of: (s) => rate(s.sent) }, { name: "from clients", of: (s) => rate(s.received) }], perSecond),
    new Chart("Traffic", [{ name: "out", of: (s) => rate(s.sent_bytes) }, { name: "in", of: (s) => rate(s.received_bytes) }], (n) => bytes(n) + "/s", 1024),
    new Chart("Memory", [{ name: "process", of: (s) => s.process }, { name: "buffered", of: (s) => s.buffered }], bytes, 1024),
    new Chart("Workers", [{ name: "busy", of: (s) => s.busy_micros / every / 1e4 }], (n) => number(n) + " %"),
    new Chart("Lost and refused", [{ name: "refused", of: (s) => rate(s.refused + s.errors) }, { name: "lost", of: (s) => rate(s.dropped) }], perSecond),
  ];
  view.append(h2, tiles, trouble, h("div", { class: "charts" }, ...charts.map((c) => c.figure)),
    h("div", { class: "columns" }, card("Workers", null, workers), card("Refused and lost", h("span", { class: "soft" }, "since the start"), troubles)),
    h("details", { class: "card" }, h("summary", {}, "The last hour as a table"), rows));

  live.watch((now, before) => {
    showTiles(tiles, now, before);
    showWorkers(workers, now, before);
    showTroubles(troubles, now);
  });
  live.every(10e3, async () => {
    const got = await live.get(["samples"], { since: samples.at(-1)?.time });
    every = got.every_ms / 1000;
    samples = [...samples, ...got.samples];
    const end = Math.max(samples.at(-1)?.time ?? 0, Date.now() - 60e3); // whose clocks differ have other ends
    samples = samples.filter((s) => s.time > end - HOUR);
    for (const c of charts) c.draw(samples, end);
    const some = samples.filter((_, i) => (samples.length - 1 - i) % 30 === 0).reverse();
    rows.replaceChildren(table("The last hour", ["Time", ...charts.flatMap((c) => c.lines.map((l) => [c.title + ": " + l.name, "n"]))],
      some.map((s) => [clock(s.time), ...charts.flatMap((c) => c.lines.map((l) => c.write(l.of(s))))]), "The first sample comes ten seconds after the start."));
  }, trouble);
}

function since(now, before, of) {
  return before ? Math.max(0, of(now) - of(before)) / ((now.time - before.time) / 1000) : undefined;
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
const refusals = (f) => sum(f.upgrades) - f.upgrades.accepted;

function showTiles(tiles, now, before) {
  const speed = (of, write) => {
    const n = since(now, before, of);
    return n === undefined ? "…" : write(n) + "/s";
  };
  const tile = (name, value, more, bar) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value), more && h("dd", { class: "soft" }, more), bar && h("dd", { class: "bar" }, bar));
  const { buffered, max_buffered: most, process, history } = now.memory;
  const places = now.connections + " of " + number(now.max_connections);
  tiles.replaceChildren(
    tile("Clients", number(now.clients), now.parked ? number(now.parked) + " may come back" : "none lost lately"),
    tile("Connections", number(now.connections), "of " + number(now.max_connections), gauge("Connections", now.connections / now.max_connections, places)),
    tile("Rooms", number(now.rooms), null),
    tile("To clients", speed((f) => f.sent, number), speed((f) => f.sent_bytes, bytes)),
    tile("From clients", speed((f) => f.received, number), speed((f) => f.received_bytes, bytes)),
    tile("Buffered", bytes(buffered), "of " + bytes(most) + (history ? ", history " + bytes(history) : ""), gauge("Buffered", buffered / most, bytes(buffered) + " of " + bytes(most))),
    tile("Process", bytes(process), "of memory"),
    tile("Lost", number(sum(now.dropped)), "messages, to slow clients"),
    tile("Refused", number(refusals(now)), "of " + number(sum(now.upgrades)) + " WebSockets"),
    tile("Up", span(now.time - now.started), h("span", {}, "since ", new Date(now.started).toLocaleString())),
  );
  tiles.removeAttribute("aria-busy");
}

function showWorkers(place, now, before) {
  place.replaceChildren(table("Workers", ["Worker", ["Connections", "n"], ["Waiting", "n"], ["Busy", "n"]], now.workers.map((w, i) => {
    const busy = since(now, before, (f) => f.workers[i].busy_micros);
    return [String(i), number(w.connections), number(w.waiting), busy === undefined ? "…" : [number(busy / 1e4) + " % ", gauge("Worker " + i, busy / 1e6, number(busy / 1e4) + " % busy")]];
  })));
}

// What can go wrong, by the names that the metrics have.
const KINDS = { upgrades: "WebSocket refused", dropped: "lost by a slow client", errors: "error told", denied: "denied by a policy", limited: "beyond a limit", closed: "closed with" };
const USUAL = { upgrades: ["accepted"], closed: ["1000", "1001", "1005"] };

function showTroubles(place, now) {
  const rows = Object.entries(KINDS).flatMap(([kind, what]) => Object.entries(now[kind])
    .filter(([name, n]) => n && !USUAL[kind]?.includes(name)).map(([name, n]) => [what, h("code", {}, name), n]));
  if (now.panics) rows.push(["fault that was caught", h("code", {}, "panic"), now.panics]);
  rows.sort((a, b) => b[2] - a[2]);
  place.replaceChildren(table("Refused and lost", ["What", "Which", ["Times", "n"]], rows.map(([a, b, n]) => [a, b, number(n)]), "Nothing was refused, and nothing lost, since the start."));
}
