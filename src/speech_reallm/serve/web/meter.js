// The latency meter: how long after its last sound a word was on the page.

const WORDS = 24;
const SCALE_SECONDS = 2;

export class LatencyMeter {
  /** output: the median goes here. canvas: a dot for each of the last words. */
  constructor(output, canvas) {
    this.output = output;
    this.canvas = canvas;
    this.clear();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  clear() {
    this.delays = [];
    // all of a word has been counted once
    this.counted = new WeakSet();
    this.show();
  }

  /** Words that will not grow any more. */
  add(words) {
    for (const word of words) {
      if (word.shown === null || this.counted.has(word)) continue;
      this.counted.add(word);
      this.delays.push(Math.max(0, word.shown - word.end));
    }
    this.delays = this.delays.slice(-WORDS);
    this.show();
  }

  /** The median in seconds, or null. */
  get median() {
    const sorted = [...this.delays].sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : null;
  }

  show() {
    this.output.textContent = this.median === null ? "–" : `${this.median.toFixed(2)} s`;
    this.draw();
  }

  draw() {
    const { canvas, delays } = this;
    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const inner = width - 8;
    pen.fillStyle = style.getPropertyValue("--line");
    pen.fillRect(4, height / 2, inner, 1);
    for (const second of [0, 1, 2]) pen.fillRect(4 + (second / SCALE_SECONDS) * (inner - 1), height / 2 - 4, 1, 9);
    pen.fillStyle = style.getPropertyValue("--accent");
    delays.forEach((delay, i) => {
      pen.globalAlpha = i === delays.length - 1 ? 1 : 0.35;
      pen.beginPath();
      pen.arc(4 + (Math.min(delay, SCALE_SECONDS) / SCALE_SECONDS) * inner, height / 2 + 0.5, 3, 0, 7);
      pen.fill();
    });
  }
}
