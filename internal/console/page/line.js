// The page's line to the server: it can be cut and slowed as the net does it, and shows every frame. Hubbub is given
// its WebSocket and fetch in the place of the browser's.

const SLOW = 600, SLOWER = 300; // ms each way, and what chance adds

export class Line {
  isCut = false;
  isSlow = false;
  opened = false; // whether the newest WebSocket ever was open
  _taps = [];
  _wire = null;

  constructor() {
    const line = this;
    this.WebSocket = function (url, protocols) { return (line._wire = new Wire(line, url, protocols)); };
    this.fetch = (...what) => (this.isCut ? Promise.reject(new TypeError("the line is cut")) : fetch(...what));
  }

  /** Calls fn with "→", "←" or "×", and the text, of all that passes. */
  tap(fn) { this._taps.push(fn); }

  /** Takes the line away, as it goes in a tunnel: without a word, and what is on its way is lost. */
  cut() {
    this.isCut = true;
    if (this._wire) this._wire.lose();
  }

  mend() { this.isCut = false; }

  /** Sends a text as it is, past the client; false where there is no connection. */
  send(text) { return !!this._wire && this._wire.send(text); }

  show(direction, text) {
    for (const fn of this._taps) fn(direction, text);
  }
}

// Wire is what Hubbub takes for a WebSocket.
class Wire {
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  _over = false;

  constructor(line, url, protocols) {
    this._line = line;
    line.opened = false;
    if (line.isCut) {
      setTimeout(() => this._end(1006, "the line is cut"), 50);
      return;
    }
    const ws = (this._ws = new WebSocket(url, protocols || []));
    const way = (this._in = new Way(line));
    this._out = new Way(line);
    ws.onopen = () => way.pass(() => {
      if (this._over) return;
      line.opened = true;
      this.onopen();
    });
    ws.onmessage = (e) => way.pass(() => {
      if (this._over) return;
      line.show("←", typeof e.data === "string" ? e.data : "a binary frame");
      this.onmessage(e);
    });
    ws.onclose = (e) => way.pass(() => this._end(e.code, e.reason));
  }

  send(text) {
    if (this._over || !this._ws || this._ws.readyState !== WebSocket.OPEN) return false;
    this._line.show("→", text);
    this._out.pass(() => {
      if (!this._over && this._ws.readyState === WebSocket.OPEN) this._ws.send(text); // else it is lost, as in the net
    });
    return true;
  }

  close(code) {
    if (this._ws) this._ws.close(code);
  }

  // 4002 keeps the session, as does a line that is lost.
  lose() {
    this._end(1006, "the line was cut");
    this.close(4002);
  }

  _end(code, reason) {
    if (this._over) return;
    this._over = true;
    this._line.show("×", code + " " + reason);
    this.onclose({ code, reason });
  }
}

// Way is one direction: all arrives in order, on a slow line later.
class Way {
  _queue = [];

  constructor(line) { this._line = line; }

  pass(fn) {
    if (!this._line.isSlow && !this._queue.length) return fn();
    const due = this._line.isSlow ? performance.now() + SLOW + Math.random() * SLOWER : 0;
    if (this._queue.push({ fn, due }) === 1) this._wait();
  }

  _wait() {
    setTimeout(() => {
      const { fn } = this._queue.shift();
      if (this._queue.length) this._wait();
      fn();
    }, Math.max(0, this._queue[0].due - performance.now()));
  }
}
