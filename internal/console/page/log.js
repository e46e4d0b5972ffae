// A list that grows at its end: bounded, following its end unless the reader has scrolled up, and read out in measure.

import { element, plural } from "./elements.js";

const NEAR = 24; // pixels from the end that count as the end
const READ_EVERY = 3000; // ms between two things that a screen reader is told

export class Log {
  /** box scrolls and has the list in it, newer is the button that leads to the end, and news, if any, is read out. */
  constructor(box, newer, news, most) {
    Object.assign(this, { _box: box, _list: box.querySelector("ol"), _newer: newer, _news: news, _most: most });
    this._follows = true;
    this._top = 0; // where it was scrolled to
    this._unread = 0;
    this._fresh = [];
    this._words = 0; // that wait to be read out
    box.addEventListener("scroll", () => {
      const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
      if (atEnd || box.scrollTop < this._top) this._follows = atEnd; // else it has grown, or its box has shrunk
      this._top = box.scrollTop;
      if (this._follows) this._showUnread(0);
    }, { passive: true });
    const keep = new ResizeObserver(() => this._follows && this.toEnd());
    keep.observe(box);
    keep.observe(this._list);
    newer.onclick = () => {
      this.toEnd();
      box.focus();
    };
  }

  get last() { return this._fresh.at(-1) || this._list.lastElementChild; }

  /** Adds an item soon, together with others that come at once; words are what a screen reader says of it. */
  add(item, words) {
    if (!this._fresh.length) setTimeout(() => this._flush(), 20);
    this._fresh.push(item);
    if (this._fresh.length > this._most) this._fresh.shift();
    if (words) this.say(words);
    return item;
  }

  note(text, words = text) { return this.add(element("li", "note", text), words); }

  /** Has a screen reader told. Of many at once it is told how many, and the last. */
  say(words) {
    if (!this._news) return;
    this._last = words;
    if (++this._words > 1) return; // it is about to be told
    setTimeout(() => {
      this._news.textContent = (this._words > 1 ? this._words + " new messages, the last: " : "") + this._last;
      this._words = 0;
      this._readAt = Date.now();
    }, Math.max(100, (this._readAt || 0) + READ_EVERY - Date.now()));
  }

  clear() {
    this._fresh = [];
    this._list.replaceChildren();
    this._showUnread(0);
  }

  toEnd() {
    this._follows = true;
    this._box.scrollTop = this._box.scrollHeight;
    this._top = this._box.scrollTop;
    this._showUnread(0);
  }

  _flush() {
    const items = this._fresh.splice(0);
    this._list.append(...items);
    while (this._list.childElementCount > this._most) this._list.firstElementChild.remove();
    if (this._follows) this.toEnd();
    else this._showUnread(this._unread + items.length);
  }

  _showUnread(n) {
    this._unread = n;
    this._newer.hidden = n === 0;
    this._newer.textContent = plural(n, "new message") + " ↓";
  }

}
