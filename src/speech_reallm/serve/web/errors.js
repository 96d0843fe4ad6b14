// What can go wrong, in words that say what to do.

export class Failure extends Error {
  /** code: for the page's own decisions ("busy", "unauthorized", ...). message: one line, for people. */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const REFUSALS = {
  busy: "The server is full. Try again in a minute.",
  rate_limited: "Too many connections from here within a minute. Wait a little, then start again.",
  draining: "The server is restarting. What was recognised is on the page; start again to go on.",
  unauthorized: "The server did not accept the key. Enter it again below.",
  idle: "No sound reached the server for a while, so it ended the connection. Start again to go on.",
  too_slow: "This connection is too slow for live text. What was recognised is on the page.",
  internal: "The server failed. What was recognised is on the page; start again to go on.",
};

/** An `error` message of the server. */
export function refusal(code, message) {
  return new Failure(code, REFUSALS[code] ?? `The server refused: ${message || code}`);
}

export function unreachable() {
  return new Failure("gone", "The server cannot be reached. What was recognised is on the page; try again later.");
}

/** What getUserMedia, or the lack of it, means. */
export function microphoneFailure(error) {
  const site = "Choose a file instead, or";
  const messages = {
    insecure:
      "Browsers lend the microphone only to pages on https:// or localhost, and this one is neither. " +
      "Open it as http://localhost, or put https in front of the server. Files work here too.",
    NotAllowedError:
      "The microphone was refused. Allow it in the browser's settings for this site, then start again. " +
      "Files work without it.",
    NotFoundError: `No microphone was found. ${site} connect one and start again.`,
    NotReadableError: `The microphone cannot be opened; another program may hold it. ${site} close that and start again.`,
  };
  const name = error.name === "SecurityError" ? "NotAllowedError" : error.name;
  return new Failure("microphone", messages[name] ?? `The microphone failed: ${error.message}. ${site} start again.`);
}
