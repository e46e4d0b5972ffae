// The token of a server that wants to know who its clients are. It is kept for this tab alone, and stands in no
// address: one that comes with the page's, as #token=TOKEN, is taken out of it at once.

import { $ } from "./elements.js";
import { keep, kept } from "./names.js";

export class Tokens {
  wanted = false; // it waits for somebody to give one
  _shown = null; // what the server was shown last

  constructor() {
    const hash = new URLSearchParams(location.hash.slice(1));
    const given = hash.get("token");
    this._token = given || kept("token");
    if (given) {
      keep("token", given);
      hash.delete("token");
      history.replaceState(null, "", location.pathname + location.search + (hash.size ? "#" + hash : ""));
    }
    $("identify").onsubmit = (e) => {
      e.preventDefault();
      this._give($("token").value.trim());
    };
  }

  of(hub) {
    this._hub = hub;
    hub.on("state", (state) => state === "online" && this._hide());
  }

  /** The token for a connection: waits for one, where the server wants another. Rejects where none is newer yet. */
  async get() {
    if (this._hub.state === "online" && this._token === this._shown) {
      this.ask("Your token ends soon. Give a newer one, and you stay.");
      this.wanted = false; // the line is good
      throw new Error("there is no newer token yet");
    }
    if (this.wanted) await (this._given ||= new Promise((resolve) => { this._resolve = resolve; }));
    return (this._shown = this._token);
  }

  /** Shows the field, and why. */
  ask(why) {
    const fresh = $("identify").hidden;
    this.wanted = true;
    $("identify").hidden = false;
    $("identify").classList.toggle("trouble", !!this._token); // to have none yet is no trouble
    $("why").textContent = (this._token && why) || "This server wants to know who you are: it lets you in with a token.";
    if (fresh && !$("text").value) $("token").focus();
  }

  /** Whether a connection has ended for good because of a bad token; then another one begins the page anew. */
  refused({ code, reason }) {
    if (code !== 4503 || !this._token) return false;
    this.ask("The server refuses your token: " + reason);
    this._anew = true;
    keep("token", "");
    return true;
  }

  _give(token) {
    if (!token) return;
    this._token = keep("token", token);
    $("token").value = "";
    if (this._anew) return location.reload();
    this.wanted = false;
    if (this._resolve) this._resolve();
    this._given = this._resolve = null;
    if (this._hub.state === "online") this._hide();
    else this._hub.check();
  }

  _hide() {
    this.wanted = false;
    $("identify").hidden = true;
    $("why").textContent = "";
  }
}
