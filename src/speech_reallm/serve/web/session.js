// One connection to /v1/stream: PCM out, messages in. See docs/websocket.md.

import { Failure, refusal, unreachable } from "./errors.js";

// more than so many seconds of sound waiting to be sent: the connection cannot carry live speech
const MAX_BACKLOG_SECONDS = 20;
// how long the server may take to let us in, and to say something while it finishes
const OPEN_MS = 10000;
const FINISH_MS = 60000;

export class Session {
  /**
   * rate: Hz of the PCM to come. delay: label delay in chunks, or null. key: API key, or "".
   * onMessage(message): every partial, final and endpoint.
   */
  constructor({ rate, delay = null, key = "", onMessage }) {
    this.rate = rate;
    this.onMessage = onMessage;
    this.url = new URL("v1/stream", document.baseURI);
    this.url.protocol = this.url.protocol === "https:" ? "wss:" : "ws:";
    this.url.searchParams.set("rate", rate);
    if (delay !== null) this.url.searchParams.set("delay", delay);
    if (key) this.url.searchParams.set("key", key);
    // settled when the connection is over: null if it ended as it should, else a Failure
    this.closed = new Promise((resolve) => (this.settle = resolve));
    this.failure = null;
    this.finishing = false;
  }

  /** Resolves with the server's `ready`; throws a Failure if it does not let us in. */
  open() {
    return new Promise((resolve, reject) => {
      this.socket = new WebSocket(this.url);
      this.socket.binaryType = "arraybuffer";
      this.watch(OPEN_MS, "The server does not answer. Is it busy or far away? Try again.");
      this.socket.onmessage = ({ data }) => {
        const message = parse(data);
        if (message.type === "ready") {
          clearTimeout(this.watchdog);
          resolve(message);
        } else if (message.type === "error") {
          this.failure ??= refusal(message.code, message.message);
        } else {
          if (this.finishing) this.watch(FINISH_MS, "The server fell silent. What was heard is on the page.");
          this.onMessage(message);
        }
      };
      this.socket.onclose = async ({ code }) => {
        clearTimeout(this.watchdog);
        const wanted = this.finishing && code === 1000;
        const failure = this.failure ?? (wanted ? null : await explain(code));
        if (failure) reject(failure);
        this.settle(failure);
      };
    });
  }

  /** pcm: Int16Array. */
  send(pcm) {
    if (this.socket.readyState !== WebSocket.OPEN || this.finishing || !pcm.length) return;
    if (this.backlog > MAX_BACKLOG_SECONDS) this.abort(refusal("too_slow"));
    else this.socket.send(pcm);
  }

  /** Seconds of sound that have not left this machine. */
  get backlog() {
    return this.socket.bufferedAmount / 2 / this.rate;
  }

  /** No more sound comes; what was heard is still answered, then the connection closes. */
  finish() {
    if (this.finishing) return;
    this.finishing = true;
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "finish" }));
    this.watch(FINISH_MS, "The server does not finish. What was heard is on the page.");
  }

  abort(failure) {
    this.failure ??= failure;
    this.socket.close();
  }

  watch(ms, message) {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.abort(new Failure("silent", message)), ms);
  }
}

function parse(data) {
  try {
    const message = JSON.parse(data);
    return message && typeof message === "object" ? message : {};
  } catch {
    return {};
  }
}

/** A connection that ended without a word: is the server gone, or did it refuse? */
async function explain(code) {
  try {
    await info();
    return new Failure(
      "lost",
      code === 1006
        ? "The connection was lost. What was heard is on the page; start again to go on."
        : `The server ended the connection (${code}). What was heard is on the page; start again to go on.`,
    );
  } catch {
    return unreachable();
  }
}

/** What the server offers: GET /v1/info. */
export async function info() {
  const response = await fetch(new URL("v1/info", document.baseURI), { signal: AbortSignal.timeout(5000) });
  if (!response.ok) throw new Failure("gone", `The server answered ${response.status}.`);
  return response.json();
}
