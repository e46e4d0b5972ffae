// What can't be undone is asked once, and what was done is said.

import { $, h } from "./elements.js";

let answer = null;

/** Asks; the promise is of whether it shall be done. */
function sure(question, detail, verb) {
  $("ask-title").textContent = question;
  $("ask-detail").textContent = detail;
  $("ask-yes").textContent = verb;
  $("ask").showModal();
  $("ask-no").focus();
  return new Promise((done) => { answer = done; });
}

function end(yes) {
  $("ask").close();
  answer?.(yes);
  answer = null;
}

export function prepare() {
  $("ask-yes").onclick = () => end(true);
  $("ask-no").onclick = () => end(false);
  $("ask").addEventListener("cancel", () => end(false));
}

/** Says what was done, or why not; bad marks it so. */
export function note(text, bad) {
  const e = h("p", { class: bad ? "bad" : "good" }, text);
  $("news").replaceChildren(e);
  clearTimeout(note.timer);
  note.timer = setTimeout(() => e.remove(), bad ? 15000 : 6000);
}

/** Does it, and says how that went. Where it has a question, it is asked first. */
export async function act(what, { question, detail = "", verb }, done) {
  if (question && !(await sure(question, detail, verb))) return false;
  try {
    const result = await what();
    note(typeof done === "function" ? done(result) : done);
    return true;
  } catch (e) {
    note("Not done: " + e.message, true);
    return false;
  }
}

/** A button for an act, which can't be pressed twice meanwhile. */
export function acting(text, what, asked, done, after) {
  const e = h("button", { type: "button", class: asked.question ? "danger" : "", onclick: async () => {
    e.disabled = true;
    if (await act(what, asked, done)) after?.();
    e.disabled = false;
  } }, text);
  return e;
}
