// The text alone, to be laid over a picture (a browser source of OBS, for example): ?overlay. It starts by itself.
//   lines=2  size=40 (px)  background=none or a colour (00b140)  microphone=part of its name  delay=0, 1, ...
//   #key=... where the server asks for one: what follows # is not sent to servers or written into their logs

import { Failure } from "./errors.js";
import { Listener } from "./listener.js";
import { info } from "./session.js";
import { Microphone } from "./sources.js";
import { Transcript } from "./transcript.js";

const RETRY_SECONDS = 5;
// captions vanish so long after their last word
const IDLE_SECONDS = 6;
// hours of talk must not fill the memory
const KEPT_SEGMENTS = 4;

const options = new URLSearchParams(location.search);
const root = document.documentElement;
const captions = document.getElementById("captions");
const lines = document.getElementById("caption-lines");
const transcript = new Transcript();
const paragraphs = new Map();
let idle = 0;
let everShown = false;

function number(name, standard, low, high) {
  const value = Number(options.get(name) || standard);
  return Number.isFinite(value) ? Math.max(low, Math.min(high, value)) : standard;
}

function setUp() {
  const background = options.get("background") ?? "none";
  root.style.setProperty("--caption-lines", Math.round(number("lines", 2, 1, 10)));
  root.style.setProperty("--caption-size", `${number("size", 40, 8, 400)}px`);
  root.style.setProperty("--behind", /^#?[0-9a-f]{6}$/i.test(background) ? `#${background.replace("#", "")}` : "transparent");
  captions.hidden = false;
}

function show(message, result) {
  if (message.type === "partial") {
    let paragraph = paragraphs.get(result.segment);
    if (!paragraph) {
      paragraph = document.createElement("p");
      const text = document.createElement("span");
      paragraph.append(text);
      paragraphs.set(result.segment, paragraph);
      lines.append(paragraph);
    }
    paragraph.firstChild.textContent = result.segment.text.trim();
    everShown = true;
    say("");
    captions.classList.remove("idle");
    clearTimeout(idle);
    idle = setTimeout(() => captions.classList.add("idle"), IDLE_SECONDS * 1000);
  }
  while (transcript.segments.length > KEPT_SEGMENTS) {
    const old = transcript.segments.shift();
    paragraphs.get(old)?.remove();
    paragraphs.delete(old);
    transcript.words.splice(0, old.words.length);
  }
}

/** For whoever sets it up; those who watch are shown no messages once there have been words. */
function say(text) {
  const message = document.getElementById("caption-message");
  message.textContent = everShown ? "" : text;
}

async function listen() {
  let source = null;
  try {
    const { lookahead_chunks: lookahead } = await info();
    source = await Microphone.open(options.get("microphone") ?? "");
    const delay = options.get("delay");
    const listener = new Listener({
      source,
      transcript,
      lookahead,
      delay: delay === null || delay === "" ? null : delay,
      key: new URLSearchParams(location.hash.slice(1)).get("key") ?? "",
      onEvent: show,
      onState: (state) => say(state === "running" ? "Listening" : ""),
    });
    await listener.run();
  } catch (error) {
    if (!(error instanceof Failure)) console.warn(error);
    say(error instanceof Failure ? error.message : "The server does not answer. Trying again …");
  } finally {
    source?.close();
  }
}

setUp();
for (;;) {
  await listen();
  await new Promise((resolve) => setTimeout(resolve, RETRY_SECONDS * 1000));
}
