// Plays a recording from a word on: a file, or what the microphone recorded.

export class Player {
  /** onTime(seconds of the transcript, or null when it does not play). */
  constructor(onTime) {
    this.onTime = onTime;
    this.audio = new Audio();
    this.audio.preload = "auto";
    for (const event of ["pause", "ended", "error"]) this.audio.addEventListener(event, () => this.ended());
    this.clear();
  }

  clear() {
    this.audio.pause();
    this.setBlob(null);
    this.recorded = this.samples = null;
    this.base = 0;
  }

  /** A file whose first sound is at `base` seconds of the transcript. */
  useFile(file, base) {
    this.clear();
    this.setBlob(file);
    this.base = base;
  }

  /** recorded: see tape.js; it may grow while nothing plays. */
  useRecorded(recorded) {
    if (this.recorded === recorded) return;
    this.clear();
    this.recorded = recorded;
  }

  setBlob(blob) {
    if (this.audio.src) URL.revokeObjectURL(this.audio.src);
    if (blob) this.audio.src = URL.createObjectURL(blob);
    else this.audio.removeAttribute("src");
    this.blob = blob;
  }

  get playing() {
    return !this.audio.paused;
  }

  /** Is the sound of this moment kept? */
  has(seconds) {
    if (this.recorded) return seconds >= this.recorded.from && seconds < this.recorded.to;
    return this.blob !== null && seconds >= this.base;
  }

  /** Seconds of the transcript. Resolves with whether it plays. */
  async play(from) {
    if (!this.has(from)) return false;
    if (this.recorded && this.samples !== this.recorded.samples) {
      this.samples = this.recorded.samples;
      this.setBlob(this.recorded.toBlob());
      this.base = this.recorded.from;
    }
    this.audio.currentTime = Math.max(0, from - this.base);
    try {
      await this.audio.play();
    } catch {
      return false;
    }
    if (!this.ticking) this.tick();
    return true;
  }

  stop() {
    this.audio.pause();
  }

  tick() {
    this.ticking = this.playing;
    if (!this.playing) return;
    this.onTime(this.base + this.audio.currentTime);
    requestAnimationFrame(() => this.tick());
  }

  ended() {
    this.ticking = false;
    this.onTime(null);
  }
}
