// Who is typing. It goes by a room of its own, so that it takes no place in the history of what is said.

import { $ } from "./elements.js";

const EVERY = 2500; // ms between two words of it
const LASTS = 4500; // ms that one of them counts

export class Typing {
  /** now() is the server's time: what comes late, behind a lost line, is nothing any more. */
  constructor(hub, talk, now) {
    Object.assign(this, { hub, talk, _told: 0, _who: new Map(), _spoke: new Map() });
    this.room = hub.room(talk.room.name + ".typing");
    this.room.on("message", (m) => {
      const late = now() - m.time > LASTS || m.time <= this._spoke.get(m.from);
      if (!late && !talk.isMe(m.from)) this._set(m.from, m.content === true);
    });
    talk.onheard = ({ from, time }) => {
      this._spoke.set(from, time);
      if (this._spoke.size > 100) this._spoke.delete(this._spoke.keys().next().value);
      this._set(from, false);
    };
  }

  /** Joins too; where that isn't allowed nobody is told who types. */
  async join() { await this.room.join().catch(() => {}); }

  /** The text has changed. */
  typed(something) {
    const now = Date.now();
    if (!something) this._told = this._told && this._say(false);
    else if (now - this._told > EVERY) this._told = this._say(true) && now;
  }

  /** What was typed is said: that tells it. */
  said() { this._told = 0; }

  _say(yes) {
    if (this.hub.state !== "online" || !this.room.joined) return false;
    this.room.publish(yes, { timeout: EVERY }).catch(() => {});
    return yes;
  }

  _set(from, yes) {
    clearTimeout(this._who.get(from));
    this._who.delete(from);
    if (yes && this._who.size < 100) this._who.set(from, setTimeout(() => this._set(from, false), LASTS));
    this._show();
  }

  _show() {
    const names = [...this._who.keys()].map((id) => this.talk.called(id)).filter(Boolean);
    $("typing").textContent = names.length > 3 ? names.length + " people are typing …"
      : names.length ? names.join(" and ") + (names.length > 1 ? " are" : " is") + " typing …" : "";
  }
}
