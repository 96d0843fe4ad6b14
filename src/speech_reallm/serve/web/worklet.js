// Runs on the audio thread: averages the channels and hands over blocks of 16-bit PCM.

const BLOCK_SECONDS = 0.04;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(sampleRate * BLOCK_SECONDS));
    this.filled = 0;
    this.running = true;
    this.port.onmessage = () => {
      // the last, shorter block, and an empty one that says that nothing follows
      if (this.filled) this.port.postMessage(this.block.slice(0, this.filled));
      this.port.postMessage(new Int16Array(0));
      this.running = false;
    };
  }

  process([channels]) {
    const samples = channels.length ? channels[0].length : 0;
    for (let i = 0; this.running && i < samples; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      const value = Math.round((sum / channels.length) * 32768);
      this.block[this.filled++] = Math.max(-32768, Math.min(32767, value));
      if (this.filled === this.block.length) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return this.running;
  }
}

registerProcessor("capture", Capture);
