// Sound that is kept: to be sent again where a connection was lost, and to be played.

/** Seconds of sound that wait for the server at most; older sound makes way. */
export const MAX_WAITING_SECONDS = 120;
const PLAY_RATE = 16000;
const PLAY_BLOCK_SECONDS = 60;
// half an hour takes 58 MB
const PLAY_BLOCKS = 30;

/** Live sound: what has not been answered yet. Positions are samples since the beginning. */
export class Tape {
  constructor(rate, seconds = MAX_WAITING_SECONDS) {
    this.capacity = Math.round(rate * seconds);
    this.blocks = [];
    this.first = this.end = 0;
  }

  /** pcm: Int16Array. Returns how many samples of the oldest sound had to make way. */
  push(pcm) {
    this.blocks.push(pcm);
    this.end += pcm.length;
    const before = this.first;
    while (this.end - this.first > this.capacity && this.blocks.length > 1) this.first += this.blocks.shift().length;
    return this.first - before;
  }

  /** At most `count` samples from `from` on, which is not before `first`. */
  read(from, count) {
    const samples = new Int16Array(Math.max(0, Math.min(count, this.end - from)));
    let at = this.first;
    let filled = 0;
    for (const block of this.blocks) {
      if (filled === samples.length) break;
      if (at + block.length > from) {
        const part = block.subarray(Math.max(0, from - at)).subarray(0, samples.length - filled);
        samples.set(part, filled);
        filled += part.length;
      }
      at += block.length;
    }
    return samples;
  }

  /** What lies before is not needed any more. */
  release(before) {
    while (this.blocks.length && this.first + this.blocks[0].length <= before) this.first += this.blocks.shift().length;
  }
}

/** A file's sound, all of it in memory; `end` grows as it becomes available. */
export class Samples {
  first = 0;
  end = 0;

  constructor(length) {
    this.all = new Int16Array(length);
  }

  push(pcm) {
    this.all.set(pcm, this.end);
    this.end += pcm.length;
    return 0;
  }

  read(from, count) {
    return this.all.slice(from, Math.min(from + count, this.end));
  }

  release() {}
}

/** The quietest 20 ms in [from, to) samples: where sound can be cut without cutting a word. */
export function quietest(sound, from, to, rate) {
  const step = Math.round(rate / 50);
  const samples = sound.read(from, Math.max(0, to - from));
  let best = from;
  let least = Infinity;
  for (let at = 0; at + step <= samples.length; at += step) {
    let energy = 0;
    for (let i = at; i < at + step; i++) energy += samples[i] * samples[i];
    if (energy < least) [best, least] = [from + at + (step >> 1), energy];
  }
  return best;
}

/** What the microphone recorded, for playing: 16 kHz, the last half hour of it. Times are those of the transcript. */
export class Recorded {
  constructor() {
    this.clear();
  }

  clear() {
    this.blocks = [];
    // seconds at which the first block begins; the sum and number of samples that make up the next one
    this.start = 0;
    this.sum = this.count = this.phase = 0;
    this.samples = 0;
  }

  get empty() {
    return !this.samples;
  }

  /** Where the first sound is that is still kept, and where the last, seconds. */
  get from() {
    return this.start;
  }

  get to() {
    return this.start + this.samples / PLAY_RATE;
  }

  /** pcm: Int16Array at `rate` Hz, following what came before. */
  push(pcm, rate) {
    for (const sample of pcm) {
      this.sum += sample;
      this.count++;
      this.phase += PLAY_RATE;
      // lower rates repeat a sample, higher ones average several
      while (this.phase >= rate) {
        this.phase -= rate;
        this.append(Math.round(this.sum / this.count));
        if (this.phase < rate) this.sum = this.count = 0;
      }
    }
  }

  append(sample) {
    const size = PLAY_BLOCK_SECONDS * PLAY_RATE;
    if (this.samples === this.blocks.length * size) {
      if (this.blocks.length === PLAY_BLOCKS) {
        this.blocks.shift();
        this.samples -= size;
        this.start += PLAY_BLOCK_SECONDS;
      }
      this.blocks.push(new Int16Array(size));
    }
    this.blocks[Math.floor(this.samples / size)][this.samples % size] = sample;
    this.samples++;
  }

  /** As a WAV file. */
  toBlob() {
    const size = PLAY_BLOCK_SECONDS * PLAY_RATE;
    const bytes = this.samples * 2;
    const header = new DataView(new ArrayBuffer(44));
    const text = (at, letters) => [...letters].forEach((c, i) => header.setUint8(at + i, c.charCodeAt(0)));
    text(0, "RIFF");
    header.setUint32(4, 36 + bytes, true);
    text(8, "WAVEfmt ");
    header.setUint32(16, 16, true);
    header.setUint16(20, 1, true);
    header.setUint16(22, 1, true);
    header.setUint32(24, PLAY_RATE, true);
    header.setUint32(28, PLAY_RATE * 2, true);
    header.setUint16(32, 2, true);
    header.setUint16(34, 16, true);
    text(36, "data");
    header.setUint32(40, bytes, true);
    const parts = this.blocks.map((block, i) => block.subarray(0, Math.min(size, this.samples - i * size)));
    return new Blob([header, ...parts], { type: "audio/wav" });
  }
}
