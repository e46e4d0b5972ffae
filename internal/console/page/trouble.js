// Why a connection can't be had. A browser doesn't say why a WebSocket does not open, so this asks over HTTP.

const CODES = {
  1000: "normal", 1001: "going away", 1002: "protocol error", 1006: "lost without a close", 1007: "bad text", 1008: "policy",
  1009: "message too big", 1011: "server error", 1013: "overload", 4000: "slow consumer", 4001: "taken over", 4002: "no sign of life",
  4401: "no good token", 4500: "kicked", 4501: "refused", 4503: "forbidden",
};

/** How a connection ended, in words. */
export function ending({ code, reason }) {
  return "code " + code + (CODES[code] ? ": " + CODES[code] : "") + (reason ? " (" + reason + ")" : "");
}

/** The address of a path beside the page. */
export function beside(path) {
  const url = new URL(path, location.href);
  url.hash = url.search = "";
  return url;
}

/** What is wrong, or "" where nobody answers: the server is away, and may come back; or it just has, if `patient`. */
export async function whyRefused(patient) {
  try {
    const ready = await over("readyz", "GET");
    if (ready.status === 503) return "The server takes no connection just now: " + ready.detail + ".";
    const may = await over("ws", "POST"); // with a GET of its own a page sends no Origin
    if (may.status === 403 || may.status === 429) return "The server refuses this page: " + may.detail;
    const plain = await over("ws", "GET");
    if (plain.status === 401) return ""; // of tokens the WebSocket's own close tells
    if (plain.status !== 426) return "At " + beside("ws") + " answers no WebSocket of Hubbub's: " + plain.status + " " + plain.detail;
    if (patient) return "";
    return "HTTP reaches the server, and WebSockets don't get through: a proxy in between probably drops the header Upgrade, or speaks HTTP/1.0 to the server. " +
      "It must pass on the headers Upgrade and Connection; in nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;";
  } catch {
    return "";
  }
}

async function over(path, method) {
  const answer = await fetch(beside(path), { method, cache: "no-store" });
  let detail = "";
  try { detail = (await answer.json()).detail; } catch { /* not one of Hubbub's */ }
  return { status: answer.status, detail: String(detail || answer.statusText) };
}
