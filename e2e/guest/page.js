import * as guest from "/guest.js";

// The tests call these from outside.
Object.assign(globalThis, guest);
globalThis.life = []; // what became of the page itself
for (const name of ["offline", "online", "pagehide", "pageshow"]) addEventListener(name, (e) => life.push(e.persisted ? name + " persisted" : name));
for (const name of ["visibilitychange", "freeze", "resume"]) document.addEventListener(name, () => life.push(name === "visibilitychange" ? document.visibilityState : name));

const trusted = trustedTypes.createPolicy("workers", { createScriptURL: (url) => url }); // the page's policy wants it

/** Has a worker, or a shared one, do the same: ask(function, ...arguments) promises what it gives. */
globalThis.employ = (kind) => {
  const worker = new (kind === "shared" ? SharedWorker : Worker)(trusted.createScriptURL("/worker.js"), { type: "module" });
  const port = worker.port || worker;
  const asked = [];
  worker.onerror = (e) => console.error("the worker fails:", e.message);
  port.onmessage = (e) => asked.shift()(e.data);
  globalThis.ask = (...what) => new Promise((resolve, reject) => {
    asked.push(({ value, error }) => (error ? reject(new Error(error)) : resolve(value)));
    port.postMessage(what);
  });
};

/** Measures in `longestTick` how long a timer of 10 ms takes at most, from now on. */
globalThis.longestTick = 0;
globalThis.tick = (at = Date.now()) => setTimeout(() => {
  globalThis.longestTick = Math.max(longestTick, Date.now() - at);
  tick();
}, 10);
globalThis.ready = true;
