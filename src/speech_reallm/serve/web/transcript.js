// What has been recognised: segments of words with times, from partials and finals. No drawing here.

/**
 * A word: {word, start, end, confidence, shown}; times are seconds of sound since the transcript began. `shown`: how
 * much sound there was when its last letter came, or null where that means nothing (full speed).
 */
export class Transcript {
  constructor() {
    this.clear();
  }

  clear() {
    this.segments = [];
    // all words in order; the words of segments are the same objects
    this.words = [];
    this.name = null;
    this.duration = 0;
    this.offset = 0;
    this.open = null;
  }

  get empty() {
    return !this.words.length;
  }

  /** A connection begins: its times count from `offset` seconds of the transcript. */
  begin(offset = this.duration) {
    this.offset = offset;
    this.open = null;
  }

  /** The transcript covers so many seconds of sound. */
  extend(seconds) {
    this.duration = Math.max(this.duration, seconds);
  }

  /** Returns {segment, grown: the word that was continued or null, added: [new words]}. */
  partial(message, shown) {
    const isNew = !this.open;
    if (isNew) {
      this.open = { text: "", words: [], final: false };
      this.segments.push(this.open);
    }
    const segment = this.open;
    segment.text += message.text;
    const words = message.words.map((word) => this.placed(word, shown));
    let grown = null;
    if (!isNew && !message.text.startsWith(" ") && words.length) {
      grown = segment.words.at(-1);
      const word = words.shift();
      // nobody waits for the punctuation after a word
      if (!isSpoken(message.text.split(" ", 1)[0])) word.shown = grown.shown;
      Object.assign(grown, word);
    }
    segment.words.push(...words);
    this.words.push(...words);
    return { segment, grown, added: words };
  }

  /** The times of a segment are settled; its text is on the page already. Returns the segment, or null. */
  final(message) {
    const segment = this.open;
    this.open = null;
    if (!segment) return null;
    segment.final = true;
    message.words.forEach((word, i) => {
      const known = segment.words[i];
      if (known?.word === word.word) Object.assign(known, this.placed(word, known.shown));
    });
    return segment;
  }

  /** The connection is over: a segment that got no final is kept as it stands. */
  end() {
    if (this.open) this.open.final = true;
    this.open = null;
  }

  /** Text, segments and words as plain data, to be stored; `restore` takes it back. */
  toData() {
    const { name, duration } = this;
    const digits = (value, scale) => Math.round(value * scale) / scale;
    const words = (segment) =>
      segment.words.map((w) => [w.word, digits(w.start, 1000), digits(w.end, 1000), digits(w.confidence, 10000)]);
    return { name, duration, segments: this.segments.map((segment) => ({ text: segment.text, words: words(segment) })) };
  }

  restore({ name, duration, segments }) {
    this.clear();
    this.name = name;
    this.duration = duration;
    for (const { text, words } of segments) {
      const segment = { text, final: true, words: [] };
      segment.words = words.map(([word, start, end, confidence]) => ({ word, start, end, confidence, shown: null }));
      this.segments.push(segment);
      this.words.push(...segment.words);
    }
  }

  /** Index of the word that is spoken at `seconds`, or of the last one before; -1 before the first. */
  indexAt(seconds) {
    let [low, high] = [0, this.words.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.words[middle].start <= seconds) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  placed({ word, start, end, confidence }, shown) {
    const { offset } = this;
    return { word, start: start + offset, end: end + offset, confidence, shown: shown === null ? null : shown + offset };
  }
}

const isSpoken = (text) => /[\p{L}\p{M}\p{N}]/u.test(text);
