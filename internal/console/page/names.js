// What people are called. Who chooses nothing gets a name made up, and keeps it while the tab lives.

const FIRST = "Amber Brave Bright Brisk Calm Clever Copper Gentle Golden Happy Honest Jolly Kind Lively Lucky Merry Nimble Quick Quiet Rosy Silver Sunny Swift Witty".split(" ");
const SECOND = "Badger Beaver Crane Dolphin Falcon Finch Fox Hare Heron Ibis Jay Koala Lark Lynx Marten Otter Owl Panda Puffin Raven Robin Seal Stork Wren".split(" ");

const oneOf = (list) => list[Math.floor(Math.random() * list.length)];

/** A name as it is shown: no controls and no marks that turn the writing around, and not too long. "" is none. */
export function clean(name) {
  if (typeof name !== "string") return "";
  return [...name.slice(0, 400).replace(/[\p{C}\p{Zl}\p{Zp}\s]+/gu, " ").trim()].slice(0, 40).join("").trim();
}

/** What a member of a room, or the sender of a message, is called: who has proved a name by a token, by that. */
export function nameOf({ user, data, client_id: id }) {
  return clean(user) || clean(data && data.name) || (id ? String(id).slice(0, 8) : "somebody");
}

export function myName() { return clean(kept("name")) || keep("name", oneOf(FIRST) + " " + oneOf(SECOND)); }

/** What this tab remembers, until it is closed. Where a browser forbids that, nothing. */
export function kept(key) {
  try { return sessionStorage.getItem("hubbub-" + key) || ""; } catch { return ""; }
}

export function keep(key, value) {
  try {
    if (value) sessionStorage.setItem("hubbub-" + key, value);
    else sessionStorage.removeItem("hubbub-" + key);
  } catch { /* then it is for this once */ }
  return value;
}
