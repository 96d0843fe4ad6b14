// Where sound comes from: the microphone, or a file. A source has `rate`, `position()`, `start(onPcm)` and `stop()`.

import { Failure, microphoneFailure, unreachable } from "./errors.js";

// what a page can decode at once without hurting the machine
const MAX_FILE_BYTES = 500 * 2 ** 20;
const MAX_FILE_SECONDS = 2 * 3600;
const FILE_RATE = 16000;
const BLOCK_SECONDS = 0.04;
// full speed: how much sound may wait in the browser to be sent
const AHEAD_SECONDS = 8;

export class Microphone {
  live = true;

  /** Asks for the microphone. Throws a Failure that says what to do. */
  static async open() {
    if (!window.isSecureContext || !navigator.mediaDevices) throw microphoneFailure({ name: "insecure" });
    let media;
    try {
      media = await navigator.mediaDevices.getUserMedia({
        // the recogniser has learnt to hear through noise; suppression takes speech away with it
        audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true },
      });
    } catch (error) {
      throw microphoneFailure(error);
    }
    const microphone = new Microphone();
    microphone.media = media;
    try {
      microphone.context = new AudioContext({ latencyHint: "interactive" });
      await microphone.context.resume();
    } catch (error) {
      microphone.close();
      throw microphoneFailure(error);
    }
    try {
      await microphone.context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    } catch {
      microphone.close();
      throw unreachable();
    }
    microphone.rate = microphone.context.sampleRate;
    return microphone;
  }

  /** onPcm(Int16Array) gets every block; resolves when the microphone has stopped. */
  async start(onPcm) {
    this.samples = 0;
    // the user may have changed their mind while the server was asked
    if (this.stopped) return this.close();
    this.arrived = performance.now();
    const node = new AudioWorkletNode(this.context, "capture");
    this.context.createMediaStreamSource(this.media).connect(node);
    // it plays nothing, but some browsers run only what leads to the loudspeaker
    node.connect(this.context.destination);
    this.port = node.port;
    const [track] = this.media.getAudioTracks();
    await new Promise((resolve, reject) => {
      track.onended = () => {
        this.close();
        reject(new Failure("microphone", "The microphone was disconnected. What was heard is on the page."));
      };
      node.port.onmessage = ({ data }) => {
        if (!data.length) {
          this.close();
          return resolve();
        }
        this.samples += data.length;
        this.arrived = performance.now();
        onPcm(data);
      };
    });
  }

  /** Seconds of sound so far, to the moment. */
  position() {
    // between two blocks time goes on, but no further than the next block
    return this.samples ? this.samples / this.rate + Math.min(0.1, (performance.now() - this.arrived) / 1000) : 0;
  }

  stop() {
    this.stopped = true;
    if (this.context.state === "running") this.port?.postMessage("stop");
    else this.port?.onmessage({ data: [] });
  }

  close() {
    this.media.getTracks().forEach((track) => track.stop());
    this.context?.close().catch(() => {});
  }
}

export class Recording {
  rate = FILE_RATE;

  /** Decodes a File. aloud: play it, and send it at the pace of speech; else as fast as the server takes it. */
  static async open(file, aloud) {
    const size = "Transcribe it on the command line: reallm transcribe FILE.";
    if (!file.size) throw new Failure("file", `${file.name} is empty.`);
    if (file.size > MAX_FILE_BYTES) throw new Failure("file", `${file.name} is too large for this page. ${size}`);
    if ((await duration(file)) > MAX_FILE_SECONDS) {
      throw new Failure("file", `${file.name} is longer than two hours, too long for this page. ${size}`);
    }
    const recording = new Recording();
    recording.live = recording.aloud = aloud;
    // made at once, while the click still counts as leave to play sound
    if (aloud) recording.context = new AudioContext();
    try {
      const decoder = new OfflineAudioContext(1, 1, FILE_RATE);
      recording.buffer = await decoder.decodeAudioData(await file.arrayBuffer());
    } catch {
      recording.close();
      throw new Failure("file", `${file.name} is not sound that this browser can decode. Convert it to WAV or MP3 first.`);
    }
    recording.duration = recording.buffer.duration;
    return recording;
  }

  /** As Microphone.start; `backlog()`: seconds that wait to be sent. */
  async start(onPcm, backlog) {
    const samples = mono(this.buffer);
    this.sent = 0;
    if (this.aloud) {
      const player = new AudioBufferSourceNode(this.context, { buffer: this.buffer });
      player.connect(this.context.destination);
      // sound may be forbidden or absent; the text comes all the same
      await Promise.race([this.context.resume().catch(() => {}), sleep(500)]);
      player.start();
    }
    this.buffer = null;
    this.started = performance.now();
    const total = samples.length;
    const block = Math.round(this.rate * BLOCK_SECONDS);
    while (this.sent < total && !this.stopped) {
      // at full speed some seconds at a time, so that the page stays alive
      const due = this.aloud ? Math.ceil(this.position() * this.rate) : this.sent + 250 * block;
      for (;;) {
        const end = Math.min(this.sent + block, total);
        if (end === this.sent || end > due || backlog() > AHEAD_SECONDS) break;
        onPcm(pcm16(samples.subarray(this.sent, end)));
        this.sent = end;
      }
      await sleep(this.aloud ? 20 : 0);
    }
    this.close();
  }

  position() {
    if (this.started === undefined) return 0;
    if (!this.aloud) return this.sent / this.rate;
    return Math.min(this.duration, (performance.now() - this.started) / 1000);
  }

  stop() {
    this.stopped = true;
  }

  close() {
    this.context?.close().catch(() => {});
    this.context = null;
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Float32Array of an AudioBuffer, its channels averaged. */
function mono(buffer) {
  const sum = buffer.getChannelData(0).slice();
  for (let c = 1; c < buffer.numberOfChannels; c++) {
    const channel = buffer.getChannelData(c);
    for (let i = 0; i < sum.length; i++) sum[i] += channel[i];
  }
  if (buffer.numberOfChannels > 1) for (let i = 0; i < sum.length; i++) sum[i] /= buffer.numberOfChannels;
  return sum;
}

function pcm16(samples) {
  return Int16Array.from(samples, (x) => Math.max(-32768, Math.min(32767, Math.round(x * 32768))));
}

/** Seconds that a file's header promises; 0 where it does not say. */
function duration(file) {
  return new Promise((resolve) => {
    const probe = new Audio();
    const done = (seconds) => {
      clearTimeout(timer);
      URL.revokeObjectURL(probe.src);
      resolve(Number.isFinite(seconds) ? seconds : 0);
    };
    const timer = setTimeout(() => done(0), 2000);
    probe.preload = "metadata";
    probe.onloadedmetadata = () => done(probe.duration);
    probe.onerror = () => done(0);
    probe.src = URL.createObjectURL(file);
  });
}
