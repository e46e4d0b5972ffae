// What a page and a worker of the tests have in common: a client that writes down all that it is told.
import { Hubbub } from "{{server}}/hubbub.js";

export const guests = {};

/** Makes a client of this name. A token of "fetch" is asked of the test each time. */
export function visit(name, url, { token, ...options } = {}) {
  const asked = async () => (await fetch("/token", { cache: "no-store" })).text();
  const hub = new Hubbub(url, { minDelay: 50, maxDelay: 500, token: token === "fetch" ? asked : token, ...options });
  const v = (guests[name] = { hub, states: [], got: [], told: [], direct: [], acked: [], failed: [], members: {} });
  hub.on("state", (state, detail) => v.states.push({ state, ...detail }));
  hub.on("gap", (g) => v.told.push(["gap", g.reason]));
  hub.on("direct", (m) => v.direct.push(m.content));
  hub.on("error", (e) => v.told.push(["error", e.code]));
}

/** Joins a room; what comes is in `got`, and all else that it is told in `told`. */
export async function join(name, room, options) {
  const v = guests[name];
  const r = v.hub.room(room, options);
  r.on("message", (m) => v.got.push(m.content));
  r.on("members", (list, count) => { v.members = { list: list.map((m) => m.client_id), count }; });
  r.on("lost", (why) => v.told.push(["lost", why]));
  r.on("gap", (g) => v.told.push(["gap", g.reason]));
  r.on("left", (why) => v.told.push(["left", why]));
  await r.join();
}

/** Publishes the numbers from..to, all at once: each is in `acked` or in `failed` afterwards. */
export function publish(name, room, from, to) {
  const v = guests[name];
  for (let n = from; n <= to; n++) {
    v.hub.room(room).publish(n).then(() => v.acked.push(n), (e) => v.failed.push([n, e.code, e.sent]));
  }
}

/** What a client was told and holds. */
export function report(name) {
  const { hub, states, got, told, direct, acked, failed, members } = guests[name];
  return {
    states, got, told, direct, acked, failed, members, state: hub.state, id: hub.id, user: hub.user ?? "",
    pending: hub._pending.size, timers: hub._timers.size, socket: !!hub._socket,
  };
}

export const close = (name) => guests[name].hub.close();
