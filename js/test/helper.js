// What the tests share: the built server (SERVER_BINARY), a proxy that cuts, and waiting for what happens.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import WS from "ws";
import { Hubbub } from "../hubbub.js";

export const patience = 180_000;

/** Waits until the condition holds, for minutes: the machine may be busy. */
export async function until(what, condition) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`it does not come: ${what}`);
    await new Promise((r) => setTimeout(r, 5));
  }
}

export const freePort = () => new Promise((resolve) => {
  const l = net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = l.address();
    l.close(() => resolve(port));
  });
});

/** A folder that is gone when the tests have ended. */
export function folder() {
  const at = mkdtempSync(path.join(tmpdir(), "hubbub-js-"));
  process.on("exit", () => rmSync(at, { recursive: true, force: true }));
  return at;
}

/** A file in a folder of its own. */
export function file(name, text) {
  const at = path.join(folder(), name);
  writeFileSync(at, text);
  return at;
}

/** The built server, on a port of its own; again() starts it there once more. */
export async function serve(t, ...flags) {
  const port = await freePort();
  const s = { port, url: `ws://127.0.0.1:${port}/ws`, http: `http://127.0.0.1:${port}`, log: "" };
  s.again = async (...more) => {
    const child = (s.child = spawn(process.env.SERVER_BINARY, ["serve", "--listen", `127.0.0.1:${port}`, ...flags, ...more], { stdio: ["ignore", "pipe", "pipe"] }));
    child.ended = new Promise((r) => child.on("exit", r));
    for (const out of [child.stdout, child.stderr]) out.on("data", (b) => { s.log += b; });
    await until("the server is ready", () => fetch(s.http + "/readyz").then((r) => r.ok, () => {
      if (child.exitCode !== null) throw new Error("the server ended: " + s.log);
    }));
  };
  s.stop = async (signal = "SIGTERM") => {
    s.child.kill(signal);
    await s.child.ended;
  };
  await s.again();
  t.after(() => s.stop());
  return s;
}

/** A hub that is quick to come back, closed with the test; it keeps its states. */
export function connect(t, url, options) {
  const hub = new Hubbub(url, { WebSocket: globalThis.WebSocket || WS, minDelay: 20, maxDelay: 300, ...options });
  hub.states = [];
  hub.on("state", (s, detail) => hub.states.push([s, detail]));
  t.after(() => hub.close());
  return hub;
}

export const online = (hub) => until("online", () => hub.state === "online");

/** What a promise is rejected with. */
export const failure = (promise) => promise.then((v) => { throw new Error("no failure but " + JSON.stringify(v)); }, (e) => e);

/** Numbers between 0 and 1, the same ones for the same seed. */
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  };
}

/** A proxy whose connections break after a number of bytes that bytes() gives, whichever way they go, until calm. */
export async function proxy(t, port, bytes) {
  const p = { cuts: 0, calm: false, open: new Set(), deaf: false };
  const l = net.createServer((near) => {
    if (p.refuse) return near.destroy();
    const far = net.connect(port, "127.0.0.1");
    let left = bytes ? bytes() : Infinity;
    const cut = () => {
      near.destroy();
      far.destroy();
      p.open.delete(cut);
    };
    p.open.add(cut);
    const pass = (from, to) => {
      from.on("data", (b) => {
        if (p.deaf || left <= 0) return;
        const part = p.calm ? b : b.subarray(0, left);
        if (!p.calm) left -= b.length;
        if (left > 0) return to.write(part);
        p.cuts++;
        to.write(part, cut); // within a frame, mostly
      });
      from.on("error", cut).on("close", cut);
    };
    pass(near, far);
    pass(far, near);
  });
  await new Promise((r) => l.listen(0, "127.0.0.1", r));
  p.url = `ws://127.0.0.1:${l.address().port}/ws`;
  p.cut = () => [...p.open].forEach((cut) => cut());
  t.after(() => {
    l.close();
    p.cut();
  });
  return p;
}
