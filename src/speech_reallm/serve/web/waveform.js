// The strip: the sound of the last seconds, the chunk clock, and the words where they landed.

const BIN_SECONDS = 0.02;
// six hours of peaks, then the oldest make way
const BINS = (6 * 3600) / BIN_SECONDS;
const LANES = 3;
// thirty pictures a second are enough, and half the work of sixty
const FRAME_MS = 30;

/** Loudness of the sound, one byte for each 20 ms. */
export class Peaks {
  constructor() {
    this.bins = new Uint8Array(BINS);
    this.clear();
  }

  clear() {
    this.samples = 0;
    this.bins.fill(0);
    this.at = 0;
    this.seconds = 0;
  }

  /** pcm: Int16Array at `rate` Hz, following what came before. */
  push(pcm, rate) {
    for (let i = 0; i < pcm.length; i++) {
      const bin = Math.floor((this.seconds + i / rate) / BIN_SECONDS);
      if (bin !== this.at) {
        this.at = bin;
        this.bins[bin % BINS] = 0;
      }
      const level = Math.min(255, Math.abs(pcm[i]) >> 7);
      if (level > this.bins[bin % BINS]) this.bins[bin % BINS] = level;
    }
    this.seconds += pcm.length / rate;
  }

  /** The loudest of [from, to) seconds, 0 to 1. */
  peak(from, to) {
    const first = Math.max(0, Math.floor(from / BIN_SECONDS), this.at - BINS + 1);
    const last = Math.min(this.at, Math.max(first, Math.ceil(to / BIN_SECONDS) - 1));
    let top = 0;
    for (let bin = first; bin <= last; bin++) top = Math.max(top, this.bins[bin % BINS]);
    return top / 255;
  }
}

export class Waveform {
  /** canvas; peaks; transcript. `chunk`, `wait`: seconds of a chunk, and until its words must have come. */
  constructor(canvas, peaks, transcript) {
    Object.assign(this, { canvas, peaks, transcript, chunk: 0.24, wait: 0, picked: null, overview: 0, origin: 0 });
    this.now = 0;
    this.running = false;
    this.lanes = new WeakMap();
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    const redraw = () => this.draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new ResizeObserver(redraw).observe(canvas);
  }

  /** position(): seconds of sound by now. overview: seconds of a whole file to show at once, or 0. */
  run(position, overview = 0) {
    this.overview = overview;
    this.origin = this.transcript.offset;
    this.running = true;
    let drawn = 0;
    const frame = (time) => {
      if (!this.running) return;
      requestAnimationFrame(frame);
      if (time - drawn < FRAME_MS) return;
      drawn = time;
      const now = position();
      // with less motion wanted, the strip moves chunk by chunk
      const moved = !this.still.matches || Math.floor(now / this.chunk) !== Math.floor(this.now / this.chunk);
      if (moved || this.overview) {
        this.now = now;
        this.draw();
      }
    };
    requestAnimationFrame(frame);
  }

  stop() {
    this.running = false;
    this.draw();
  }

  pick(word) {
    this.picked = word;
    if (!this.running) this.draw();
  }

  clear() {
    this.now = this.overview = this.origin = 0;
    this.lanes = new WeakMap();
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const view = this.view(width, height);
    this.drawChunks(pen, view);
    this.drawSound(pen, view);
    if (view.words) this.drawWords(pen, view);
    if (!this.running && this.transcript.empty) this.caption(pen, "Words land here, under their sound.", 14, view.base + 33, view);
  }

  caption(pen, text, x, y, { colors, font }) {
    pen.font = `12px ${font}`;
    pen.fillStyle = colors.muted;
    pen.fillText(text, x, y);
  }

  view(width, height) {
    const style = getComputedStyle(this.canvas);
    const color = (name) => style.getPropertyValue(name).trim();
    const colors = Object.fromEntries(["ink", "muted", "line", "accent", "tint", "wave"].map((n) => [n, color(`--${n}`)]));
    const span = this.overview || Math.max(4, Math.min(12, width / 80));
    let left = this.overview ? this.origin : this.now - span;
    const { picked } = this;
    const seen = picked && picked.start >= left && picked.end <= left + span;
    if (picked && !this.running && !this.overview && !seen) left = (picked.start + picked.end - span) / 2;
    const words = !this.overview || this.overview <= 15;
    const base = words ? height - 18 - LANES * 17 : height - 18;
    const x = (seconds) => ((seconds - left) / span) * width;
    return { width, height, colors, span, left, x, base, words, font: style.fontFamily };
  }

  drawChunks(pen, view) {
    const { width, colors, span, left, x, base } = view;
    // what is heard but need not be written yet
    if (this.running && !this.overview && this.wait) {
      const from = Math.max(this.origin, this.now - this.wait);
      pen.fillStyle = colors.tint;
      pen.fillRect(x(from), 0, x(this.now) - x(from), base);
      if (x(this.now) - x(from) > 66) this.caption(pen, "on its way", x(from) + 7, 15, view);
    }
    if ((this.chunk / span) * width < 5) return;
    const first = Math.max(0, Math.ceil((left - this.origin) / this.chunk));
    const last = Math.floor((Math.min(left + span, this.now) - this.origin) / this.chunk);
    pen.fillStyle = colors.line;
    for (let c = first; c <= last; c++) pen.fillRect(x(this.origin + c * this.chunk), base, 1, 5);
    if (this.running) {
      // the chunk at hand fills up
      const from = this.origin + last * this.chunk;
      pen.fillStyle = colors.accent;
      pen.fillRect(x(from), base, x(this.now) - x(from), 5);
    }
  }

  drawSound(pen, { width, colors, span, left, x, base }) {
    const middle = base / 2 + 2;
    const tall = base / 2 - 8;
    pen.fillStyle = colors.line;
    pen.fillRect(0, Math.round(middle), width, 1);
    // bars stand at fixed times, so that they do not shimmer as they move
    const step = (3.5 / width) * span;
    const end = Math.min(left + span, this.overview ? this.peaks.seconds : this.now);
    for (let k = Math.floor(Math.max(0, left) / step); k * step < end; k++) {
      const level = this.peaks.peak(k * step, (k + 1) * step) ** 0.65;
      const within = this.picked && (k + 1) * step > this.picked.start && k * step < this.picked.end;
      const done = !this.overview || k * step < this.now;
      pen.fillStyle = within ? colors.accent : done ? colors.wave : colors.line;
      const half = Math.max(0.75, level * tall);
      pen.beginPath();
      pen.roundRect(x(k * step), middle - half, 2, 2 * half, 1);
      pen.fill();
    }
  }

  drawWords(pen, { width, colors, span, left, x, base, font }) {
    const { words } = this.transcript;
    let i = words.length;
    while (i > 0 && words[i - 1].end > left - 1.5) i--;
    const ends = Array(LANES).fill(-Infinity);
    pen.textBaseline = "alphabetic";
    for (; i < words.length && words[i].start < left + span; i++) {
      const word = words[i];
      const picked = word === this.picked;
      pen.font = `${picked ? 600 : 400} 12px ${font}`;
      const size = pen.measureText(word.word).width;
      const from = x(word.start);
      // a word keeps its lane while the strip moves
      let lane = this.lanes.get(word);
      if (lane === undefined) {
        lane = ends.findIndex((end) => end < from - 5);
        if (lane < 0) lane = ends.indexOf(Math.min(...ends));
        this.lanes.set(word, lane);
      }
      ends[lane] = from + Math.max(size, x(word.end) - from);
      const y = base + 12 + lane * 17;
      pen.fillStyle = picked ? colors.accent : colors.ink;
      pen.fillText(word.word, from, y + 11);
      pen.fillStyle = colors.accent;
      pen.fillRect(from, y + 14, Math.max(2, x(word.end) - from), 1.5);
    }
  }
}
