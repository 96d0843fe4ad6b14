// The page: ties sound, connection and transcript together.

import { Failure } from "./errors.js";
import { FORMATS, toText } from "./formats.js";
import { LatencyMeter } from "./meter.js";
import { info, Session } from "./session.js";
import { Microphone, Recording } from "./sources.js";
import { Transcript } from "./transcript.js";
import { Peaks, Waveform } from "./waveform.js";
import { WordsView } from "./words.js";

const MUTED_SECONDS = 2;

const $ = (id) => document.getElementById(id);
const transcript = new Transcript();
const peaks = new Peaks();
const waveform = new Waveform($("waveform"), peaks, transcript);
const meter = new LatencyMeter($("latency-value"), $("latency-dots"));
const view = new WordsView($("transcript"), $("tip"), (word) => waveform.pick(word));

// what the server said it offers, or null
let server = null;
// the source that is being heard, or null; and the kind of the transcript on the page
let source = null;
let busy = false;
// nothing on the page that has not been copied or downloaded
let saved = true;

// ---- from sound to words

/** open(): makes the source. */
async function run(open, name) {
  if (busy) return;
  if (!(await mayContinue(name))) return;
  busy = true;
  notice("");
  controls();
  let failure = null;
  let done = "";
  try {
    source = await open();
    done = await listen(source, name);
  } catch (error) {
    if (!(error instanceof Failure)) console.error(error);
    failure = error instanceof Failure ? error : new Failure("page", `Something went wrong: ${error.message}`);
  }
  source?.close();
  source = null;
  busy = false;
  transcript.end();
  waveform.stop();
  meter.add(transcript.words.slice(-1));
  document.title = "Speech ReaLLM";
  status(!failure && transcript.empty ? "Nothing was understood." : done);
  if (failure) notice(failure.message);
  if (failure?.code === "unauthorized") askForKey(true);
  controls();
}

/** Returns what there is to say when all went well. */
async function listen(source, name) {
  status("Connecting …");
  controls();
  const session = new Session({ rate: source.rate, delay: chosenDelay(), key: key(), onMessage: (m) => receive(m, source) });
  const ready = await session.open();
  if (transcript.empty) {
    meter.clear();
    peaks.clear();
  }
  transcript.begin();
  transcript.name = name;
  // the strip counts through, whatever was heard in between
  peaks.seconds = transcript.offset;
  waveform.chunk = ready.chunk_ms / 1000;
  waveform.wait = bound(ready.delay);
  $("latency").classList.toggle("off", !source.live);
  const overview = source.live ? 0 : source.duration;
  let written = 0;
  source.written = (seconds) => (written = Math.max(written, seconds));
  waveform.run(() => transcript.offset + (source.live ? source.position() : written), overview);
  clockFor(source);
  const isFile = source instanceof Recording;
  document.title = "● Speech ReaLLM";
  status(isFile ? (source.live ? "Playing" : "Reading") : "Listening");
  controls();
  const wake = await navigator.wakeLock?.request("screen").catch(() => null);
  const begun = performance.now();
  let silence = 0;
  const sound = source.start(
    (pcm) => {
      peaks.push(pcm, source.rate);
      transcript.heard((source.count = (source.count ?? 0) + pcm.length / source.rate));
      session.send(pcm);
      if (isFile) return;
      silence = isSilent(pcm) ? silence + pcm.length / source.rate : 0;
      status(silence > MUTED_SECONDS ? "Listening, but the microphone gives no sound. Is it muted?" : "Listening");
    },
    () => session.backlog,
  );
  // whichever ends first: the sound, perhaps with an error, or the connection
  const ended = sound.then(
    () => null,
    (error) => error,
  );
  const first = await Promise.race([ended, session.closed.then(() => "connection")]);
  if (first === "connection") {
    source.stop();
  } else {
    source.ending = true;
    status("Writing the last words …");
    controls();
    session.finish();
  }
  const failure = (await session.closed) ?? (first instanceof Error ? first : null);
  wake?.release();
  if (failure) throw failure;
  if (!source.live) return `Done: ${seconds(source.duration)} of sound in ${seconds((performance.now() - begun) / 1000)}.`;
  return "Done.";
}

/** Even a quiet room is louder than this. */
const isSilent = (pcm) => pcm.every((sample) => sample > -3 && sample < 3);

function receive(message, source) {
  if (message.type === "partial") {
    source.written?.(message.time);
    const before = transcript.words.at(-1);
    const { segment, grown, added } = transcript.partial(message, source.live ? source.position() : null);
    if (grown) view.update(grown);
    view.add(segment, added);
    // the word before is complete once another follows
    if (added.length) meter.add([before, ...added.slice(0, -1)].filter(Boolean));
    $("empty").hidden = true;
    saved = false;
  } else if (message.type === "final") {
    const segment = transcript.final(message);
    if (!segment) return;
    segment.words.forEach((word) => view.update(word));
    meter.add(segment.words);
    say(segment.text);
  } else if (message.type === "endpoint") {
    source.written?.(message.time);
  }
  controls();
}

/** For screen readers: whole segments, as words alone would interrupt each other. */
function say(text) {
  const line = document.createElement("p");
  line.textContent = text;
  $("log").append(line);
  while ($("log").childElementCount > 20) $("log").firstChild.remove();
}

function clockFor(running) {
  const tick = () => {
    const seconds = transcript.offset + (running.live ? running.position() : (running.count ?? 0));
    $("clock").textContent = minutes(Math.max(seconds, transcript.duration));
    if (source === running) setTimeout(tick, 100);
  };
  tick();
}

const minutes = (seconds) => `${Math.floor(seconds / 60)}:${(Math.floor((seconds % 60) * 10) / 10).toFixed(1).padStart(4, "0")}`;

// ---- controls

/** May what is on the page go on (microphone after microphone), or be replaced? */
async function mayContinue(name) {
  if (transcript.empty || (name === null && transcript.name === null)) return true;
  if (!saved && !(await confirmed())) return false;
  clear();
  return true;
}

function confirmed() {
  const dialog = $("replace");
  dialog.returnValue = "keep";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "replace");
  });
}

function clear() {
  transcript.clear();
  view.clear();
  peaks.clear();
  waveform.clear();
  meter.clear();
  $("log").replaceChildren();
  $("clock").textContent = minutes(0);
  $("empty").hidden = false;
  saved = true;
  status("");
  controls();
}

function controls() {
  const running = busy && source !== null;
  $("listen").classList.toggle("on", running);
  $("dock").classList.toggle("running", busy);
  $("listen").disabled = busy && (!running || source.ending === true);
  const again = transcript.name === null && !transcript.empty;
  $("listen-label").textContent = running ? "Stop" : again ? "Go on listening" : "Start listening";
  $("file").disabled = busy;
  for (const input of document.querySelectorAll(".choice input")) input.disabled = busy;
  for (const button of document.querySelectorAll(".actions button")) button.disabled = transcript.empty;
  $("clear").disabled ||= busy;
  $("legend").hidden = transcript.empty;
}

function status(text) {
  // screen readers read out every change, so there must be none without a reason
  if ($("status").textContent !== text) $("status").textContent = text;
}

function notice(text) {
  $("notice").hidden = !text;
  $("notice-text").textContent = text;
}

$("listen").onclick = () => {
  if (!busy) return run(() => Microphone.open(), null);
  source?.stop();
};

function hear(file) {
  const aloud = document.querySelector("input[name=pace]:checked").value === "aloud";
  return run(() => Recording.open(file, aloud), file.name);
}

$("file").onchange = ({ target }) => {
  const [file] = target.files;
  if (file) hear(file);
  // so that the same file may be chosen again
  target.value = "";
};

$("clear").onclick = async () => {
  if (saved || (await confirmed())) clear();
};
$("notice-close").onclick = () => notice("");

// ---- drag and drop

let over = 0;
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (hasFiles(event) && !busy) $("drop").hidden = ++over < 1;
});
addEventListener("dragleave", (event) => {
  if (hasFiles(event) && over > 0) $("drop").hidden = --over < 1;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  over = 0;
  $("drop").hidden = true;
  const [file] = event.dataTransfer?.files ?? [];
  if (file && !busy) hear(file);
});

// ---- taking the text along

$("copy").onclick = async ({ target }) => {
  const text = toText(transcript);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyOldWay(text);
  }
  saved = true;
  target.textContent = "Copied";
  status("Copied.");
  setTimeout(() => (target.textContent = "Copy"), 1500);
};

/** Pages without https have no clipboard of their own. */
function copyOldWay(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

for (const button of document.querySelectorAll("[data-format]")) {
  button.onclick = () => {
    const suffix = button.dataset.format;
    const { type, write } = FORMATS[suffix];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([write(transcript)], { type: `${type};charset=utf-8` }));
    link.download = `${stem()}.${suffix}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    saved = true;
    status(`Saved as ${link.download}.`);
  };
}

function stem() {
  if (transcript.name) return transcript.name.replace(/\.[^.]*$/, "") || "transcript";
  const local = new Date(Date.now() - new Date().getTimezoneOffset() * 60000);
  return `transcript-${local.toISOString().slice(0, 16).replace("T", "-").replace(":", "")}`;
}

// what was said and not saved is worth a question
addEventListener("beforeunload", (event) => {
  if (!saved || busy) event.preventDefault();
});

// ---- what the server offers

/** Seconds after its last sound at which a word must have been written, by the model's design. */
function bound(delay) {
  return server ? (server.chunk_ms / 1000) * (1 + server.lookahead_chunks + delay) : 0;
}

const seconds = (value) => `${Number(value.toFixed(2))} s`;

function chosenDelay() {
  const chosen = document.querySelector("input[name=delay]:checked");
  return chosen ? Number(chosen.value) : null;
}

function key() {
  return sessionStorage.getItem("key") ?? "";
}

function askForKey(wrong = false) {
  if (wrong) sessionStorage.removeItem("key");
  $("key-form").hidden = Boolean(key());
  if (wrong) $("key").focus();
}

$("key-form").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value.trim());
  $("key").value = "";
  notice("");
  askForKey();
  $("listen").focus();
};

function offer() {
  let language = server.language;
  try {
    language = new Intl.DisplayNames("en", { type: "language" }).of(server.language);
  } catch {
    // a code that this browser does not know is shown as it is
  }
  $("model").textContent = `${server.models[0]} · ${language} · ${location.host}`;
  $("transcript").lang = server.language;
  promise(server.delay);
  if (server.delays.length < 2) return;
  for (const delay of server.delays) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    const text = document.createElement("span");
    Object.assign(input, { type: "radio", name: "delay", value: delay, checked: delay === server.delay });
    input.onchange = () => promise(delay);
    text.textContent = seconds(bound(delay));
    label.append(input, text);
    $("delays").append(label);
  }
  $("delays").hidden = false;
}

function promise(delay) {
  $("promise").textContent =
    `Each word is written at most ${seconds(bound(delay))} after it was said, plus the time to compute and to travel. ` +
    "It is never taken back.";
}

async function start() {
  controls();
  waveform.draw();
  try {
    server = await info();
  } catch {
    notice("The server does not answer. Is it running? Reload the page to try again.");
    return;
  }
  offer();
  if (server.key_required) askForKey();
}

start();
