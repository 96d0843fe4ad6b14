// One connection to /v1/stream: PCM out, messages in. See docs/websocket.md.

import { Failure, refusal, unreachable } from "./errors.js";

// how long the server may take to let us in, and to answer something while it finishes
const OPEN_MS = 20000;
const FINISH_MS = 60000;
/** How often the server reports how far it has come. */
const PROGRESS_MS = 250;

export class Session {
  /**
   * rate: Hz of the PCM to come. delay: label delay in chunks, or null. key: API key, or "".
   * onMessage(message): every partial, final, endpoint and progress.
   */
  constructor({ rate, delay = null, key = "", onMessage }) {
    this.rate = rate;
    this.onMessage = onMessage;
    this.url = new URL("v1/stream", document.baseURI);
    this.url.protocol = this.url.protocol === "https:" ? "wss:" : "ws:";
    this.url.searchParams.set("rate", rate);
    this.url.searchParams.set("progress_ms", PROGRESS_MS);
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
        // after the end nothing may change the page any more
        if (this.over) return;
        const message = parse(data);
        if (message.type === "ready") {
          clearTimeout(this.watchdog);
          resolve(message);
        } else if (message.type === "error") {
          this.failure ??= refusal(message.code, message.message);
        } else {
          if (this.finishing) this.watch(FINISH_MS, "The server stopped answering. What was recognised is on the page.");
          this.onMessage(message);
        }
      };
      this.socket.onclose = ({ code }) => this.end(code, reject);
      this.reject = reject;
    });
  }

  end(code, reject) {
    if (this.over) return;
    this.over = true;
    clearTimeout(this.watchdog);
    const failure = this.failure ?? (this.finishing && code === 1000 ? null : lost(code));
    if (failure) reject(failure);
    this.settle(failure);
  }

  get isOpen() {
    return !this.over && !this.finishing && this.socket.readyState === WebSocket.OPEN;
  }

  /** pcm: Int16Array. */
  send(pcm) {
    if (this.isOpen && pcm.length) this.socket.send(pcm);
  }

  /** Seconds of sound that have not left this machine. */
  get backlog() {
    return this.socket.bufferedAmount / 2 / this.rate;
  }

  /** No more sound comes; what was sent is still answered, then the connection closes. */
  finish() {
    if (!this.isOpen) return;
    this.finishing = true;
    this.socket.send(JSON.stringify({ type: "finish" }));
    this.watch(FINISH_MS, "The server does not finish. What was recognised is on the page.");
  }

  /** Over at once: where the network is gone, a farewell would be waited for in vain. */
  abort(failure) {
    this.failure ??= failure;
    this.socket.close();
    this.end(1006, this.reject);
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

/** A connection that ended without a reason given. */
function lost(code) {
  return new Failure(
    "lost",
    code === 1006
      ? "The connection was lost. What was recognised is on the page; start again to go on."
      : `The server ended the connection (${code}). What was recognised is on the page; start again to go on.`,
  );
}

/** The failure of a first connection: is the server gone, or does only the WebSocket fail? */
export async function explained(failure) {
  if (failure.code !== "lost") return failure;
  try {
    await info();
    return failure;
  } catch {
    return unreachable();
  }
}

/** What the server offers: GET /v1/info. */
export async function info() {
  const response = await fetch(new URL("v1/info", document.baseURI), { signal: AbortSignal.timeout(10000) });
  if (!response.ok) throw new Failure("gone", `The server answered ${response.status}.`);
  return response.json();
}
