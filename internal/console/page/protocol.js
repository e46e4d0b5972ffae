// The inspector: every frame of the page's connection, and messages by hand.

import { $, element } from "./elements.js";
import { Log } from "./log.js";

const MOST = 200; // frames in the list
const MOST_TEXT = 2000; // characters of one

export class Protocol {
  constructor(hub, line, room) {
    this._frames = new Log($("frames"), $("newer-frames"), null, MOST);
    this._asked = 0;
    this._line = line;
    line.tap((direction, text) => this._frame(direction, text));
    this._kinds = () => ({
      join_room: { room: "kitchen", data: { name: "by hand" } },
      room_message: { room: "kitchen", content: "hello" },
      leave_room: { room: "kitchen" },
      presence: { room },
      history: { room, limit: 5 },
      direct_message: { to: hub.id || "", content: "psst" },
      chat: { content: "hello, everyone" },
      ping: {},
      request: { method: "your.method", content: {} },
    });
    $("kind").append(...Object.keys(this._kinds()).map((kind) => element("option", "", kind)));
    $("kind").onchange = () => this._fill();
    $("raw").onsubmit = (e) => {
      e.preventDefault();
      this._send();
    };
    $("clear").onclick = () => this._frames.clear();
    hub.on("state", () => $("json").value || this._fill());
    this._fill();
  }

  _fill() {
    const kind = $("kind").value;
    // An id that is text is none of the client's own.
    $("json").value = JSON.stringify({ msg_type: kind, ...this._kinds()[kind], id: "mine-" + ++this._asked });
    $("unsent").textContent = "";
  }

  // What isn't JSON goes out as it is: to see what the server says is what this is for.
  _send() {
    $("unsent").textContent = this._line.send($("json").value) ? "" : "There is no connection.";
  }

  _frame(direction, text) {
    if (direction === "←" && text.startsWith('{"msg_type":"welcome"')) this._welcome(JSON.parse(text));
    if (!$("pings").checked && /^\{"msg_type":"p[io]ng"/.test(text) && !text.includes('"mine-')) return;
    const size = text.length;
    if (size > MOST_TEXT) text = text.slice(0, MOST_TEXT) + " … (" + size + " characters)";
    const way = element("span", "way", direction);
    this._frames.add(element("li", { "→": "out", "←": "in", "×": "end" }[direction], way, " ", text));
  }

  _welcome({ msg_type, ...m }) {
    $("session").replaceChildren(...Object.entries(m).map(([key, value]) =>
      element("div", "", element("dt", "", key), element("dd", "", key === "resume_token" ? "…" : String(value)))));
  }
}
