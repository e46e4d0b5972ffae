// The API beside this page, and the key for it, which stays in this tab and goes in a header alone.

const base = new URL("api/v1/", new URL(".", location.href));
const KEPT = "hubbub-console-key";

export const key = {
  get: () => sessionStorage.getItem(KEPT) || "",
  keep: (text) => sessionStorage.setItem(KEPT, text),
  forget: () => sessionStorage.removeItem(KEPT),
};

/** Why a call was not done. status is 0 where there is no answer. */
export class Refused extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

const trouble = new EventTarget();

/** Calls fn with each Refused that says that the key is none. */
export const onKeyTrouble = (fn) => trouble.addEventListener("key", (e) => fn(e.detail));

/** path is a list of segments. */
async function ask(method, path, { query, body, signal } = {}) {
  const url = new URL(path.map(encodeURIComponent).join("/"), base);
  for (const [name, value] of Object.entries(query || {})) if (value !== undefined && value !== "") url.searchParams.set(name, value);
  const headers = { Authorization: "Bearer " + key.get() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let res;
  try {
    res = await fetch(url, { method, headers, body, signal, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Refused(0, "", e instanceof TypeError ? "The server doesn't answer." : e.message);
  }
  if (res.ok) return res;
  const problem = await res.json().catch(() => ({}));
  const refused = new Refused(res.status, problem.code || "", problem.detail || "The server answers " + res.status + ".");
  if (res.status === 401 || problem.code === "api_off") trouble.dispatchEvent(new CustomEvent("key", { detail: refused }));
  throw refused;
}

/** Answers with the JSON of a call; null where it has none. */
export async function call(method, path, options) {
  const res = await ask(method, path, options);
  return res.status === 204 ? null : res.json();
}

export const get = (path, query, signal) => call("GET", path, { query, signal });

/** Calls hear with the kind and the data, still a text, of each event of a tail, until it ends. */
export async function listen(query, signal, hear, open) {
  const res = await ask("GET", ["tail"], { query, signal });
  open();
  const reader = res.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const cut = block.indexOf("\ndata: ");
      if (block.startsWith("event: ") && cut > 0) hear(block.slice(7, cut), block.slice(cut + 7));
    }
  }
}
