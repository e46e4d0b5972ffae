import * as guest from "/guest.js";

// A worker, or a shared one: it does what it is asked to, and says what came of it.
const serve = (port) => {
  port.onmessage = async ({ data: [what, ...args] }) => {
    try {
      port.postMessage({ value: await guest[what](...args) });
    } catch (e) {
      port.postMessage({ error: `${e}` });
    }
  };
};
if (globalThis.postMessage) serve(globalThis);
else globalThis.onconnect = (e) => serve(e.ports[0]);
