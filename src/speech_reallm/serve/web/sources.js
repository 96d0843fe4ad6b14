// Where sound comes from: the microphone, or a file. A source has `rate`, `live` (does it come as fast as it is
// spoken?), `sound` (what has come, see tape.js), `position()`, `start(onSound)`, `stop()` and `close()`.

import { Failure, microphoneFailure, unreachable } from "./errors.js";
import { Samples, Tape } from "./tape.js";

// what a page can decode at once without hurting the machine
const MAX_FILE_BYTES = 500 * 2 ** 20;
const MAX_FILE_SECONDS = 2 * 3600;
const FILE_RATE = 16000;
const BLOCK_SECONDS = 0.04;
// at full speed so much is made ready at a time, so that the page stays alive
const SLICE_SECONDS = 60;

export class Microphone {
  live = true;

  /**
   * Asks for the microphone. wanted: part of its name, or "" for the browser's choice.
   * Throws a Failure that says what to do.
   */
  static async open(wanted = "") {
    if (!window.isSecureContext || !navigator.mediaDevices) throw microphoneFailure({ name: "insecure" });
    const microphone = new Microphone();
    try {
      microphone.media = await ask();
      if (wanted) {
        // names are told only to pages that may listen already
        const devices = await navigator.mediaDevices.enumerateDevices();
        const found = devices.find(
          ({ kind, label }) => kind === "audioinput" && label.toLowerCase().includes(wanted.toLowerCase()),
        );
        microphone.close();
        if (!found) throw new Failure("microphone", `No microphone's name contains "${wanted}".`);
        microphone.media = await ask(found.deviceId);
      }
      microphone.context = new AudioContext({ latencyHint: "interactive" });
      await microphone.context.resume();
    } catch (error) {
      microphone.close();
      throw error instanceof Failure ? error : microphoneFailure(error);
    }
    try {
      await microphone.context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    } catch {
      microphone.close();
      throw unreachable();
    }
    microphone.rate = microphone.context.sampleRate;
    microphone.sound = new Tape(microphone.rate);
    return microphone;
  }

  /** onSound(pcm, lost) gets every block and how many samples had to make way; resolves when the microphone has stopped. */
  async start(onSound) {
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
        reject(new Failure("microphone", "The microphone was disconnected. What was recognised is on the page."));
      };
      node.port.onmessage = ({ data }) => {
        if (!data.length) {
          this.close();
          return resolve();
        }
        this.arrived = performance.now();
        onSound(data, this.sound.push(data));
      };
    });
  }

  /** Seconds of sound so far, to the moment. */
  position() {
    const { end } = this.sound;
    // between two blocks time goes on, but no further than the next block
    return end ? end / this.rate + Math.min(0.1, (performance.now() - this.arrived) / 1000) : 0;
  }

  stop() {
    this.stopped = true;
    if (this.context.state === "running") this.port?.postMessage("stop");
    else this.port?.onmessage({ data: [] });
  }

  close() {
    this.media?.getTracks().forEach((track) => track.stop());
    this.context?.close().catch(() => {});
  }
}

function ask(deviceId) {
  return navigator.mediaDevices.getUserMedia({
    audio: {
      channelCount: 1,
      echoCancellation: false,
      // the recogniser was trained on noisy speech; suppression takes speech away with the noise
      noiseSuppression: false,
      autoGainControl: true,
      ...(deviceId && { deviceId: { exact: deviceId } }),
    },
  });
}

export class Recording {
  rate = FILE_RATE;

  /** Decodes a File. aloud: play it, and send it at the pace of speech; else as fast as the server takes it. */
  static async open(file, aloud) {
    const advice = "Transcribe it on the command line: reallm transcribe FILE.";
    if (!file.size) throw new Failure("file", `${file.name} is empty.`);
    if (file.size > MAX_FILE_BYTES) throw new Failure("file", `${file.name} is too large for this page. ${advice}`);
    if ((await length(file)) > MAX_FILE_SECONDS) {
      throw new Failure("file", `${file.name} is longer than two hours, too long for this page. ${advice}`);
    }
    const recording = new Recording();
    recording.file = file;
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
    recording.sound = new Samples(recording.buffer.length);
    return recording;
  }

  /** As Microphone.start; resolves when all of it has been handed over. */
  async start(onSound) {
    const { buffer, sound } = this;
    if (this.aloud) {
      const player = new AudioBufferSourceNode(this.context, { buffer });
      player.connect(this.context.destination);
      // sound may be forbidden or absent; the text comes all the same
      await Promise.race([this.context.resume().catch(() => {}), sleep(500)]);
      player.start();
    }
    this.started = performance.now();
    const total = buffer.length;
    const block = Math.round(this.rate * (this.aloud ? BLOCK_SECONDS : SLICE_SECONDS));
    while (sound.end < total && !this.stopped) {
      const due = this.aloud ? Math.min(total, Math.ceil(this.position() * this.rate)) : sound.end + block;
      while (sound.end < due) {
        const pcm = pcm16(buffer, sound.end, Math.min(sound.end + block, total));
        onSound(pcm, sound.push(pcm));
        if (sound.end === total) break;
      }
      await sleep(this.aloud ? 20 : 0);
    }
    this.buffer = null;
    this.close();
  }

  position() {
    if (this.started === undefined) return 0;
    if (!this.aloud) return this.sound.end / this.rate;
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

/** [from, to) of an AudioBuffer as Int16Array, its channels averaged. */
function pcm16(buffer, from, to) {
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c).subarray(from, to));
  const pcm = new Int16Array(to - from);
  for (let i = 0; i < pcm.length; i++) {
    let sum = 0;
    for (const channel of channels) sum += channel[i];
    pcm[i] = Math.max(-32768, Math.min(32767, Math.round((sum / channels.length) * 32768)));
  }
  return pcm;
}

/** Seconds that a file's header promises; 0 where it does not say. */
function length(file) {
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
