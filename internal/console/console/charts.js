// Charts of the last hour, drawn as SVG; what one shows is said in words as well.

import { clock, h, say, span } from "./elements.js";

const HOUR = 3600e3, LEAST = 300e3, WIDTH = 720, HEIGHT = 120;

function svg(tag, attributes, ...content) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...content);
  return e;
}

/** A chart of one line, or of several. */
export class Chart {
  /** lines are { name, of: (sample) => number }; write makes a text of a number, base is what its units are apart. */
  constructor(title, lines, write, base = 10) {
    Object.assign(this, { title, lines, write, base });
    this.samples = [];
    this.now = h("dl", { class: "now" }, ...lines.map((line, i) => h("div", { class: "line" + i }, h("dt", {}, line.name), h("dd", {}, "–"))));
    this.top = h("span", { class: "top" }, "");
    this.at = svg("line", { y1: 0, y2: HEIGHT, class: "at", visibility: "hidden" });
    this.paths = lines.flatMap((_, i) => [svg("path", { class: "area line" + i }), svg("path", { class: "stroke line" + i })]);
    this.svg = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": title + ": nothing measured yet" }, ...this.paths, this.at);
    this.when = h("span", {}, "now");
    this.from = h("span", {}, "1 h ago");
    this.figure = h("figure", { class: "chart" },
      h("figcaption", {}, h("h3", {}, title), this.now),
      h("div", { class: "plot" }, this.top, this.svg), h("p", { class: "axis" }, this.from, this.when));
    this.svg.addEventListener("pointermove", (e) => this.point(e));
    this.svg.addEventListener("pointerleave", () => this.point(null));
  }

  /** Shows samples, which are in order; end is the time now, of the server's clock. */
  draw(samples, end) {
    this.samples = samples;
    if (!samples.length) return;
    this.end = end;
    this.span = Math.min(HOUR, Math.max(LEAST, end - samples[0].time)); // of a young server the hour would be empty
    say(this.from, span(this.span) + " ago");
    const values = this.lines.map(({ of }) => samples.map(of));
    const most = Math.max(...values.flat());
    const top = nice(most, this.base);
    const x = (s) => this.x(s.time).toFixed(1), y = (v) => (HEIGHT - 1 - (v / top) * (HEIGHT - 4)).toFixed(1);
    values.forEach((of, i) => {
      const line = of.map((v, k) => x(samples[k]) + " " + y(v)).join("L");
      this.paths[2 * i].setAttribute("d", `M${x(samples[0])} ${HEIGHT}L${line}L${x(samples.at(-1))} ${HEIGHT}z`);
      this.paths[2 * i + 1].setAttribute("d", "M" + line);
    });
    say(this.top, this.write(top));
    this.tell(samples.at(-1));
    const told = this.lines.map(({ name }, i) => `${name} ${this.write(values[i].at(-1))} now, between ${this.write(Math.min(...values[i]))} and ${this.write(Math.max(...values[i]))}`);
    this.svg.setAttribute("aria-label", `${this.title}, the last ${span(end - samples[0].time)}: ${told.join("; ")}`);
  }

  x(time) { return WIDTH * (1 - (this.end - time) / this.span); }

  tell(sample) {
    this.lines.forEach(({ of }, i) => say(this.now.children[i].lastChild, this.write(of(sample))));
  }

  // The figures of where the pointer is, or of now.
  point(e) {
    if (!this.samples.length) return;
    let sample = this.samples.at(-1);
    if (e) {
      const box = this.svg.getBoundingClientRect();
      const time = this.end - this.span * (1 - (e.clientX - box.left) / box.width);
      sample = this.samples.reduce((best, s) => (Math.abs(s.time - time) < Math.abs(best.time - time) ? s : best));
      this.at.setAttribute("x1", this.x(sample.time));
      this.at.setAttribute("x2", this.x(sample.time));
    }
    this.at.setAttribute("visibility", e ? "visible" : "hidden");
    say(this.when, e ? "at " + clock(sample.time) : "now");
    this.tell(sample);
  }
}

/** The next of 1, 2, 5, 10, … above a number; of 1, 2, 4, 8, … where units are 1024 apart. */
function nice(n, base) {
  if (n <= 1) return 1;
  if (base === 1024) return 2 ** Math.ceil(Math.log2(n));
  const ten = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((f) => f * ten).find((v) => v >= n);
}

/** A bar of how much of a bound is used. */
export function gauge(label, part, text) {
  const width = Math.max(0, Math.min(1, part)) * 100;
  return svg("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", class: "gauge" + (part > 0.8 ? " full" : ""), role: "img", "aria-label": label + ": " + text },
    svg("rect", { width: 100, height: 4, class: "whole" }), svg("rect", { width, height: 4, class: "part" }));
}
