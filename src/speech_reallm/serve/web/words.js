// The transcript on the page: one span a word, faint where unsure; one Tab stop, arrow keys within.

import { clock } from "./clock.js";

const FAINT_BELOW = 0.4;

export class WordsView {
  /**
   * root: where paragraphs go. tip: the tooltip. onPick(word or null): a word is pointed at.
   * onPlay(word): it was clicked, or Enter was pressed on it.
   */
  constructor({ root, tip, onPick, onPlay }) {
    Object.assign(this, { root, tip, onPick, onPlay, playing: null });
    this.spans = new Map();
    this.wordOf = new WeakMap();
    this.paragraphs = new Map();
    this.stop = null;
    root.addEventListener("pointerover", ({ target }) => this.show(target));
    root.addEventListener("pointerout", () => this.hide());
    root.addEventListener("focusin", ({ target }) => this.show(target));
    root.addEventListener("focusout", () => this.hide());
    root.addEventListener("keydown", (event) => this.move(event));
    root.addEventListener("click", ({ target }) => {
      if (!this.wordOf.has(target)) return;
      target.focus();
      // a selection is being made, to be copied
      if (getSelection().isCollapsed) this.onPlay(this.wordOf.get(target));
    });
    // a tooltip is put away without leaving the word
    document.addEventListener("keydown", ({ key }) => key === "Escape" && this.hide());
    addEventListener("scroll", () => this.hide(), { passive: true });
  }

  clear() {
    this.paragraphs.forEach((paragraph) => paragraph.remove());
    this.paragraphs.clear();
    this.spans.clear();
    this.stop = this.playing = null;
    this.hide();
  }

  add(segment, words) {
    if (!words.length) return;
    const stay = nearBottom();
    let paragraph = this.paragraphs.get(segment);
    if (!paragraph) {
      paragraph = document.createElement("p");
      this.paragraphs.set(segment, paragraph);
      this.root.append(paragraph);
    }
    for (const word of words) {
      const span = document.createElement("span");
      span.className = "word";
      span.tabIndex = -1;
      if (paragraph.childNodes.length) paragraph.append(" ");
      paragraph.append(span);
      this.spans.set(word, span);
      this.wordOf.set(span, word);
      this.update(word);
      if (!this.stop) this.setStop(span);
    }
    if (stay) scrollTo({ top: document.documentElement.scrollHeight });
  }

  update(word) {
    const span = this.spans.get(word);
    if (!span) return;
    if (span.textContent !== word.word) span.textContent = word.word;
    const sure = Math.max(0, Math.min(1, (word.confidence - FAINT_BELOW) / (1 - FAINT_BELOW)));
    span.style.setProperty("--sure", `${Math.round(sure * 100)}%`);
  }

  /** The word that sounds just now, or null. */
  mark(word) {
    const span = word ? this.spans.get(word) : null;
    if (span === this.playing) return;
    this.playing?.classList.remove("sounding");
    span?.classList.add("sounding");
    this.playing = span ?? null;
    span?.scrollIntoView({ block: "nearest" });
  }

  setStop(span) {
    if (this.stop) this.stop.tabIndex = -1;
    this.stop = span;
    span.tabIndex = 0;
  }

  show(span) {
    const word = this.wordOf.get(span);
    if (!word) return;
    const { tip } = this;
    tip.textContent = describe(word);
    tip.hidden = false;
    const box = span.getBoundingClientRect();
    const width = tip.offsetWidth;
    const left = Math.max(8, Math.min(box.left + box.width / 2 - width / 2, document.documentElement.clientWidth - width - 8));
    const above = box.top - tip.offsetHeight - 6;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : box.bottom + 6}px`;
    span.setAttribute("aria-describedby", "tip");
    this.onPick(word);
  }

  hide() {
    if (this.tip.hidden) return;
    this.tip.hidden = true;
    this.onPick(null);
  }

  move(event) {
    if (event.key === "Enter" && this.wordOf.has(event.target)) return this.onPlay(this.wordOf.get(event.target));
    const words = [...this.spans.values()];
    const at = words.indexOf(event.target);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: words.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const span = words[Math.max(0, Math.min(words.length - 1, to))];
    this.setStop(span);
    span.focus();
  }
}

function describe({ start, end, confidence, shown }) {
  const parts = [`${clock(start, 1)}–${clock(end, 1)}`, `${Math.round(confidence * 100)} % sure`];
  if (shown !== null) parts.push(`shown ${Math.max(0, shown - end).toFixed(1)} s later`);
  return parts.join(" · ");
}

/** Does the reader follow the newest words? Then the page goes along. */
function nearBottom() {
  const { scrollHeight, clientHeight } = document.documentElement;
  return scrollHeight - clientHeight - scrollY < 80;
}
