// As in React Native: what it lacks is gone, and its WebSocket has the shape that it has there.
import WS from "ws";

for (const name of [
  "addEventListener", "removeEventListener", "dispatchEvent", "document", "location", "CustomEvent", "MessageChannel", "BroadcastChannel",
  "crypto", "structuredClone", "WebSocket",
]) delete globalThis[name];
globalThis.window = globalThis;
Object.defineProperty(globalThis, "navigator", { value: { product: "ReactNative" }, configurable: true });

/**
 * Hands everything to another thread and hears of it later: after its close() messages may still come. Of one that
 * failed there is an error first and a close after it, with the fault as the reason.
 */
export class NativeSocket {
  static open = 0; // how many have not ended
  readyState = 0;

  constructor(url, protocols, options = {}) {
    if (Object.keys(options).length) throw new Error("Unrecognized WebSocket connection option(s)");
    NativeSocket.open++;
    const origin = url.replace(/^ws/, "http").replace(/(:\/\/[^/]+).*/, "$1"); // it is the server's own
    const native = (this._native = new WS(url, Array.isArray(protocols) ? protocols : [], { origin }));
    const tell = (name, event) => setTimeout(() => this["on" + name] && this["on" + name](event), 1);
    native.on("open", () => {
      if (this.readyState === 0) this.readyState = 1;
      tell("open", {});
    });
    native.on("message", (data, binary) => tell("message", { data: binary ? data.buffer : String(data) }));
    let fault;
    native.on("error", (e) => {
      fault = e.message;
      tell("error", {});
    });
    native.on("close", (code, reason) => {
      NativeSocket.open--;
      this.readyState = 3;
      tell("close", { code: fault ? 1006 : code, reason: fault || String(reason) });
    });
  }

  send(data) {
    if (this.readyState === 0) throw new Error("INVALID_STATE_ERR");
    if (typeof data !== "string") throw new Error("Unsupported data type");
    if (this.readyState === 1) this._native.send(data);
  }

  close(code = 1000, reason = "") {
    if (code !== 1000 && !(code >= 3000 && code < 5000)) throw new Error(`no code to close with: ${code}`);
    if (this.readyState > 1) return;
    this.readyState = 2;
    this._native.close(code, reason);
  }
}

/** An AbortController whose signal has no reason. */
export class NativeAbortController {
  signal = {
    aborted: false,
    heard: new Set(),
    addEventListener(_, fn) { this.heard.add(fn); },
    removeEventListener(_, fn) { this.heard.delete(fn); },
  };
  abort() {
    this.signal.aborted = true;
    for (const fn of [...this.signal.heard]) fn();
  }
}
