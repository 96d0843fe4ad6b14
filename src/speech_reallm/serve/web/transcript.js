// What has been said: segments of words with times, from partials and finals. No drawing here.

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

  /** A connection begins: its times count from the end of what has been heard before. */
  begin() {
    this.offset = this.duration;
    this.open = null;
  }

  /** so many seconds of this connection's sound have been sent */
  heard(seconds) {
    this.duration = Math.max(this.duration, this.offset + seconds);
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

  placed({ word, start, end, confidence }, shown) {
    const { offset } = this;
    return { word, start: start + offset, end: end + offset, confidence, shown: shown === null ? null : shown + offset };
  }
}

const isSpoken = (text) => /[\p{L}\p{M}\p{N}]/u.test(text);
