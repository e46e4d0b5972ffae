// Live figures: what a client can learn by itself. Every second it sends a ping and counts what has passed.

import { $ } from "./elements.js";

const SECONDS = 60; // in the chart
const TRIPS = 200; // round trips, of which p99 is taken
const HEIGHT = 40; // of the chart's own units

export class Figures {
  _trips = []; // ms, the newest last
  _seconds = []; // of the chart: { rate, trip, down }
  _passed = 0;
  _ahead = 0; // of the server's clock, ms
  _asking = false;
  _pause = 0;

  constructor(hub, line, room) {
    this.hub = hub;
    const typing = '"room":' + JSON.stringify(room + ".typing");
    line.tap((direction, text) => {
      if (/^\{"msg_type":"(room_message|chat|direct_message)"/.test(text) && !text.includes(typing)) this._passed++;
    });
    setInterval(() => this._second(), 1000);
  }

  /** The server's time, as well as it is known. */
  now() { return Date.now() + this._ahead; }

  async _ping() {
    if (this._asking || document.hidden || this.hub.state !== "online" || this._pause-- > 0) return;
    this._asking = true;
    const asked = performance.now();
    try {
      const { time } = await this.hub.ping({ timeout: 20e3 });
      const trip = performance.now() - asked;
      this._trips.push(trip);
      if (this._trips.length > TRIPS) this._trips.shift();
      this._ahead = time + trip / 2 - Date.now();
      this._newest = trip;
    } catch {
      this._pause = 10; // limits, or no line
    }
    this._asking = false;
  }

  _second() {
    const down = this.hub.state !== "online";
    this._seconds.push({ rate: this._passed, trip: down ? null : this._newest ?? null, down });
    if (this._seconds.length > SECONDS) this._seconds.shift();
    this._passed = 0;
    this._newest = undefined;
    this._ping();
    if (!document.hidden) this._show();
  }

  _show() {
    const { _seconds: all } = this;
    const p99 = quantile(this._trips, 0.99);
    const rate = all.slice(-5).reduce((sum, s) => sum + s.rate, 0) / Math.min(5, all.length);
    $("rate").textContent = rate >= 10 ? Math.round(rate).toLocaleString() : rate.toFixed(1);
    $("p99").textContent = p99 === undefined ? "–" : ms(p99);
    const mostTrip = Math.max(1, ...all.map((s) => s.trip ?? 0)), mostRate = Math.max(5, ...all.map((s) => s.rate));
    $("scale").textContent = "top: " + ms(mostTrip) + ", " + mostRate + " a second";
    const x0 = SECONDS - all.length;
    let bars = "", down = "", trips = "", pen = "M";
    all.forEach((s, i) => {
      const x = x0 + i;
      if (s.rate) bars += `M${x + 0.15} ${HEIGHT}v${-s.rate / mostRate * (HEIGHT - 2)}h.7v${s.rate / mostRate * (HEIGHT - 2)}z`;
      if (s.down) down += `M${x} 0h1v${HEIGHT}h-1z`;
      if (s.trip !== null) {
        trips += `${pen}${x + 0.5} ${HEIGHT - s.trip / mostTrip * (HEIGHT - 3)}`;
        pen = "L";
      } else if (s.down) pen = "M";
    });
    const [downPath, barsPath, line] = $("chart").children;
    downPath.setAttribute("d", down);
    barsPath.setAttribute("d", bars);
    line.setAttribute("d", trips);
    const text = p99 === undefined ? "Nothing measured yet" : `The last minute: at most ${mostRate} messages a second, round trips of at most ${ms(mostTrip)}`;
    if ($("chart").getAttribute("aria-label") !== text) $("chart").setAttribute("aria-label", text);
  }
}

function quantile(values, q) {
  if (!values.length) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil(q * sorted.length) - 1];
}

const ms = (t) => (t < 10 ? t.toFixed(1) : Math.round(t).toLocaleString()) + " ms";
