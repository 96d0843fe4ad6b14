// Sound to words, over as many connections as it takes: what the server has not answered is kept and sent again.

import { Failure, refusal } from "./errors.js";
import { explained, Session } from "./session.js";
import { quietest } from "./tape.js";

const BLOCK_SECONDS = 0.2;
// sound that may wait in the browser, and sound that may be under way to the server without being recognised
const AHEAD_SECONDS = 8;
const WINDOW_SECONDS = 20;
// seconds between attempts; the last one repeats
const RETRY_SECONDS = [0.3, 0.7, 1.5, 3];
const GIVE_UP_SECONDS = 600;
// after Stop only the last words are missing
const GIVE_UP_ENDING_SECONDS = 30;
// the server reports every quarter of a second, so so many seconds without a message mean something
const LATE_SECONDS = 3;
const LOST_SECONDS = 10;
// a server that fails so often without recognising anything will go on failing
const MAX_FRUITLESS = 3;
// how much later than by design a word may be written; sound older than that holds no word that is still to come
const LATE_WORD_SECONDS = 2;
// trying again does not help against these
const FATAL = new Set(["unauthorized", "bad_request", "bad_message", "too_slow"]);

export class Listener {
  /**
   * source: see sources.js. transcript: gets the words. delay, key: as of Session.
   * onSound(pcm): every block, once. onState(state): "connecting", "running", "late" (no message for some seconds),
   * "lost" (the connection; it is tried again), "ending". onEvent(message, result): after the transcript has taken a
   * partial ({segment, grown, added}) or a final (its segment). onReady(ready): at every connection.
   */
  constructor(options) {
    Object.assign(this, { onSound() {}, onState() {}, onEvent() {}, onReady() {} }, options);
    this.base = this.transcript.duration;
    // seconds of the source: recognised so far; where this connection began; where the last word ended; lost for good
    this.recognised = this.from = this.lastEnd = this.lostSeconds = 0;
    this.sent = 0;
    this.state = "";
    this.fruitless = 0;
    this.reporting = false;
    this.bound = 0;
  }

  /** Seconds of the transcript that have been recognised. */
  get position() {
    return this.base + this.recognised;
  }

  /** Seconds of sound that have come and have not been recognised. */
  get waiting() {
    return Math.max(0, this.source.sound.end / this.source.rate - this.recognised);
  }

  /** Resolves when all has been recognised; throws a Failure. */
  async run() {
    this.tell("connecting");
    try {
      await this.connect();
    } catch (failure) {
      throw await explained(failure);
    }
    const clock = setInterval(() => this.tick(), 1000);
    try {
      this.tell("running");
      const sound = this.source.start((pcm, lost) => this.take(pcm, lost));
      sound
        .catch((error) => (this.soundFailure = error))
        .then(() => {
          this.ended = true;
          if (this.state !== "lost") this.tell("ending");
          this.pump();
        });
      for (let failure; (failure = await this.session.closed); ) await this.reconnect(failure);
      this.recognised = this.sent / this.source.rate;
    } finally {
      clearInterval(clock);
      this.source.stop();
      this.transcript.end();
    }
    if (this.soundFailure) throw this.soundFailure;
  }

  /** No more sound; the last words still come. Again, while the connection is lost: give up on them. */
  stop() {
    if (this.stopped && this.state === "lost") {
      this.givenUp = new Failure("lost", "The connection was lost. What was recognised is on the page.");
      this.opening.abort(this.givenUp);
    }
    this.stopped = true;
    this.source.stop();
    this.wake?.();
  }

  /** Opens a connection that begins where the last one left off. */
  async connect() {
    const { source, transcript } = this;
    const { sound, rate } = source;
    const begin = this.resumeAt();
    const session = new Session({
      rate,
      delay: this.delay,
      key: this.key,
      onMessage: (message) => this.session === session && this.receive(message),
    });
    this.opening = session;
    const ready = await session.open();
    this.lostSeconds += Math.max(0, sound.first - begin) / rate;
    this.sent = Math.max(begin, sound.first);
    this.from = this.sent / rate;
    transcript.end();
    transcript.begin(this.base + this.from);
    this.session = session;
    this.quiet = 0;
    this.bound = (ready.chunk_ms / 1000) * (1 + (this.lookahead ?? 0) + ready.delay);
    this.onReady(ready);
    this.pump();
  }

  /** The sample from which on sound has to be sent again: after the last word, and after what is surely wordless. */
  resumeAt() {
    const { sound, rate } = this.source;
    const wordless = this.recognised - this.bound - LATE_WORD_SECONDS;
    const seconds = Math.min(this.recognised, Math.max(this.lastEnd, wordless, this.from));
    const at = Math.round(seconds * rate);
    if (!at || at < sound.first) return at;
    return quietest(sound, at, Math.min(sound.end, at + Math.round(0.2 * rate)), rate);
  }

  async reconnect(failure) {
    const began = performance.now();
    this.fruitless++;
    for (let attempt = 0; ; attempt++) {
      const seconds = (performance.now() - began) / 1000;
      const { sound, rate } = this.source;
      if (this.ended && sound.end - this.resumeAt() < 0.25 * rate && failure.code === "draining") {
        // the server answered all that there was before it went
        this.session = { closed: Promise.resolve(null) };
        return;
      }
      const hopeless = FATAL.has(failure.code) || (failure.code === "internal" && this.fruitless >= MAX_FRUITLESS);
      const limit = this.ended ? GIVE_UP_ENDING_SECONDS : GIVE_UP_SECONDS;
      if (this.givenUp) throw this.givenUp;
      if (hopeless || seconds > limit) throw failure;
      this.tell("lost");
      await this.pause(RETRY_SECONDS[Math.min(attempt, RETRY_SECONDS.length - 1)] * (0.8 + 0.4 * Math.random()));
      if (this.givenUp) throw this.givenUp;
      try {
        await this.connect();
        this.tell(this.ended ? "ending" : "running");
        return;
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        failure = error;
      }
    }
  }

  /** Waits, but not when the network has just come back or the user stops. */
  async pause(seconds) {
    await new Promise((resolve) => {
      this.wake = resolve;
      addEventListener("online", resolve, { once: true });
      setTimeout(resolve, seconds * 1000);
    });
    removeEventListener("online", this.wake);
    this.wake = null;
  }

  /** Sound has come; `lost`: how many samples of older sound made way for it. */
  take(pcm, lost) {
    this.onSound(pcm);
    const { sound, rate, live } = this.source;
    if (live) this.transcript.extend(this.base + sound.end / rate);
    // the server takes sound more slowly than it comes, and has done so for two minutes
    if (lost && this.session.isOpen && this.sent < sound.first) this.session.abort(refusal("too_slow"));
    this.pump();
  }

  /** Sends what the connection and the server can take. */
  pump() {
    const { source, session } = this;
    const { sound, rate } = source;
    if (!session?.isOpen) return;
    const ahead = () => this.sent / rate - this.recognised;
    while (
      this.sent < sound.end &&
      session.backlog < AHEAD_SECONDS &&
      (!this.reporting || ahead() < WINDOW_SECONDS) &&
      // a file that is stopped ends where it is
      !(this.stopped && !source.live)
    ) {
      const pcm = sound.read(this.sent, Math.round(BLOCK_SECONDS * rate));
      session.send(pcm);
      this.sent += pcm.length;
    }
    this.transcript.extend(this.base + this.sent / rate);
    if (this.ended && (this.sent >= sound.end || (this.stopped && !source.live))) session.finish();
  }

  receive(message) {
    this.quiet = 0;
    if (this.state === "late") this.tell(this.ended ? "ending" : "running");
    if (message.type === "progress") this.reporting = true;
    if (typeof message.time === "number" && this.from + message.time > this.recognised) {
      this.recognised = this.from + message.time;
      this.fruitless = 0;
    }
    const { transcript, source } = this;
    if (message.type === "partial") {
      const shown = source.live ? source.position() - this.from : null;
      this.note(message);
      this.onEvent(message, transcript.partial(message, shown));
    } else if (message.type === "final") {
      const segment = transcript.final(message);
      this.note(message);
      if (segment) this.onEvent(message, segment);
    }
    source.sound.release(this.resumeAt() - source.rate);
    this.pump();
  }

  note({ words }) {
    const last = words.at(-1);
    if (last) this.lastEnd = Math.max(this.lastEnd, this.from + last.end);
  }

  /** Every second: has the server fallen silent? */
  tick() {
    this.pump();
    if (!this.reporting || !this.session?.socket || this.session.over) return;
    this.quiet++;
    const silent = "The server stopped answering. What was recognised is on the page.";
    if (this.quiet >= LOST_SECONDS) this.session.abort(new Failure("silent", silent));
    else if (this.quiet >= LATE_SECONDS) this.tell("late");
  }

  tell(state) {
    if (this.state === state) return;
    this.state = state;
    this.onState(state);
  }
}
