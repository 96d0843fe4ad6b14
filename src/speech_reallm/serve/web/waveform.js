// The strip: the sound of the last seconds, the chunk clock, and the words where they were spoken. When nothing runs it
// can be dragged through the whole recording.

import { clock } from "./clock.js";
import { Labels } from "./labels.js";

const BIN_SECONDS = 0.02;
// six hours of peaks, then the oldest make way
const BINS = (6 * 3600) / BIN_SECONDS;
const LANES = 3;
// px at the top, where times are written
const CAPTION = 20;
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
  /**
   * canvas; peaks; transcript; onSeek(seconds): a place was clicked. `chunk`, `wait`: seconds of a chunk, and until its
   * words must have come. `recognised`: seconds of the transcript that the server has recognised.
   */
  constructor({ canvas, peaks, transcript, onSeek }) {
    Object.assign(this, { canvas, peaks, transcript, onSeek, chunk: 0.24, wait: 0, picked: null, head: null });
    this.now = this.recognised = this.left = this.origin = this.overview = 0;
    this.running = false;
    this.labels = new Labels(LANES);
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    const redraw = () => this.draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new ResizeObserver(redraw).observe(canvas);
    this.listenToPointer();
  }

  /** position(): seconds of the transcript by now. overview: seconds of a whole file to show at once, or 0. */
  run(position, overview = 0) {
    this.overview = overview;
    this.origin = this.transcript.duration;
    this.running = true;
    this.head = null;
    this.canvas.classList.remove("still");
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

  /** The end of the sound stays in view; of a file that was read at full speed, its beginning. */
  stop() {
    this.running = false;
    this.left = this.overview ? this.origin : this.now - this.span;
    this.overview = 0;
    this.rest();
  }

  /** Shows a transcript without its sound, from its beginning on. */
  rest() {
    this.canvas.classList.toggle("still", !this.transcript.empty);
    this.draw();
  }

  pick(word) {
    this.picked = word;
    if (this.running) return;
    if (word && (word.start < this.left || word.end > this.left + this.span)) {
      this.left = (word.start + word.end - this.span) / 2;
    }
    this.draw();
  }

  /** Where playback is, seconds, or null. */
  playAt(seconds) {
    this.head = seconds;
    if (this.running) return;
    // a page further where it would leave the strip
    if (seconds !== null && (seconds < this.left || seconds > this.left + 0.95 * this.span)) {
      this.left = seconds - 0.05 * this.span;
    }
    this.draw();
  }

  clear() {
    this.now = this.recognised = this.overview = this.origin = this.left = 0;
    this.picked = this.head = null;
    this.labels.clear();
    this.rest();
  }

  /** Seconds that are shown at once. */
  get span() {
    return this.overview || Math.max(4, Math.min(12, this.canvas.clientWidth / 90));
  }

  get scale() {
    return this.canvas.clientWidth / this.span;
  }

  listenToPointer() {
    const { canvas } = this;
    let from = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (this.running || this.transcript.empty || event.button) return;
      canvas.setPointerCapture(event.pointerId);
      from = { x: event.clientX, left: this.left, moved: false };
    });
    canvas.addEventListener("pointermove", ({ clientX }) => {
      if (!from) return;
      from.moved ||= Math.abs(clientX - from.x) > 4;
      if (!from.moved) return;
      this.left = from.left - (clientX - from.x) / this.scale;
      this.draw();
    });
    canvas.addEventListener("pointerup", ({ clientX }) => {
      if (from && !from.moved) this.onSeek(this.left + (clientX - canvas.getBoundingClientRect().x) / this.scale);
      from = null;
    });
    canvas.addEventListener("pointercancel", () => (from = null));
    canvas.addEventListener(
      "wheel",
      (event) => {
        // sideways only: the wheel of a mouse scrolls the page
        if (this.running || this.transcript.empty || Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
        event.preventDefault();
        this.left += event.deltaX / this.scale;
        this.draw();
      },
      { passive: false },
    );
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
    this.drawCaptions(pen, view);
  }

  view(width, height) {
    const style = getComputedStyle(this.canvas);
    const color = (name) => style.getPropertyValue(name).trim();
    const colors = Object.fromEntries(["ink", "muted", "line", "accent", "tint", "wave"].map((n) => [n, color(`--${n}`)]));
    const { span, transcript } = this;
    if (!this.running) this.left = Math.max(0, Math.min(this.left, transcript.duration - span));
    const left = !this.running ? this.left : this.overview ? this.origin : this.now - span;
    const words = !this.overview || this.overview <= 15;
    const base = words ? height - 18 - LANES * 17 : height - 14;
    const x = (seconds) => ((seconds - left) / span) * width;
    return { width, height, colors, span, left, x, base, words, font: style.fontFamily };
  }

  drawChunks(pen, view) {
    const { width, colors, span, left, x, base } = view;
    // recorded, but it need not be written yet
    if (this.running && !this.overview && this.wait) {
      const from = Math.max(this.origin, Math.min(this.now - this.wait, this.recognised), left);
      pen.fillStyle = colors.tint;
      pen.fillRect(x(from), 0, x(this.now) - x(from), base);
      view.pending = x(from);
    }
    if ((this.chunk / span) * width < 5) return;
    const first = Math.max(0, Math.ceil((left - this.origin) / this.chunk));
    const end = this.running ? this.now : this.transcript.duration;
    const last = Math.floor((Math.min(left + span, end) - this.origin) / this.chunk);
    pen.fillStyle = colors.line;
    for (let c = first; c <= last; c++) pen.fillRect(x(this.origin + c * this.chunk), base, 1, 5);
    if (this.running && !this.overview) {
      // the chunk at hand fills up
      const from = this.origin + last * this.chunk;
      pen.fillStyle = colors.accent;
      pen.fillRect(x(from), base, x(this.now) - x(from), 5);
    }
  }

  drawSound(pen, { width, colors, span, left, x, base }) {
    const middle = (base + CAPTION) / 2;
    const tall = (base - CAPTION) / 2 - 3;
    pen.fillStyle = colors.line;
    pen.fillRect(0, Math.round(middle), width, 1);
    // bars stand at fixed times, so that they do not shimmer as they move
    const step = (3.5 / width) * span;
    const end = Math.min(left + span, this.running && !this.overview ? this.now : this.peaks.seconds);
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
    if (this.head !== null) {
      pen.fillStyle = colors.accent;
      pen.fillRect(x(this.head) - 1, CAPTION, 2, base - CAPTION);
    }
  }

  drawWords(pen, { width, colors, span, left, base, font }) {
    const { words } = this.transcript;
    const scale = width / span;
    pen.font = `12px ${font}`;
    pen.textBaseline = "alphabetic";
    const places = this.labels.place(words, scale, (text) => pen.measureText(text).width);
    // from the first word that can reach into the strip
    let i = Math.max(0, this.transcript.indexAt(left - 6));
    for (; i < words.length && words[i].start < left + span; i++) {
      const { lane, at, mark } = places[i];
      if (lane < 0) continue;
      const from = at - left * scale;
      const y = base + 12 + lane * 17;
      pen.fillStyle = words[i] === this.picked ? colors.accent : colors.ink;
      pen.fillText(words[i].word, from, y + 11);
      pen.fillStyle = colors.accent;
      pen.fillRect(from, y + 14, mark, 1.5);
    }
  }

  drawCaptions(pen, { width, span, left, base, colors, font, pending }) {
    const write = (text, x, y) => pen.fillText(text, x, y);
    pen.font = `12px ${font}`;
    pen.fillStyle = colors.muted;
    if (!this.running && this.transcript.empty) return write("Words appear here, under their sound.", 14, base + 33);
    if (pending !== undefined) {
      const text = this.recognised < this.now - this.wait - 1 ? "waiting" : "on its way";
      if (width - pending > pen.measureText(text).width + 12) write(text, pending + 7, 14);
    } else {
      const end = clock(left + span);
      write(clock(left), 8, 14);
      write(end, width - pen.measureText(end).width - 8, 14);
    }
  }
}
