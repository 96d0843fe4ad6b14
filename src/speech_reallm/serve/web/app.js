// The page: ties sound, connection, transcript and playback together.

import { clock, duration } from "./clock.js";
import { takeAlong } from "./downloads.js";
import { Failure } from "./errors.js";
import { Keeper } from "./keeper.js";
import { Listener } from "./listener.js";
import { LatencyMeter } from "./meter.js";
import { Player } from "./player.js";
import { info } from "./session.js";
import { Microphone, Recording } from "./sources.js";
import { MAX_WAITING_SECONDS, Recorded } from "./tape.js";
import { Transcript } from "./transcript.js";
import { Peaks, Waveform } from "./waveform.js";
import { WordsView } from "./words.js";

const MUTED_SECONDS = 2;
// live text that is so late is worth a word
const BEHIND_SECONDS = 5;

const $ = (id) => document.getElementById(id);
const transcript = new Transcript();
const peaks = new Peaks();
const recorded = new Recorded();
const waveform = new Waveform({ canvas: $("waveform"), peaks, transcript, onSeek: play });
const meter = new LatencyMeter($("latency-value"), $("latency-dots"));
const view = new WordsView({ root: $("transcript"), tip: $("tip"), onPick: pick, onPlay: (word) => play(word.start) });
const player = new Player(playedTo);
const keeper = new Keeper({ transcript, dialog: $("earlier"), onOpen: reopen, onKept: () => (saved = true) });

// what the server said it offers, or null
let server = null;
// what is being recognised, or null
let listener = null;
let busy = false;
// nothing on the page that has not been copied, downloaded or kept in the browser
let saved = true;
let picked = null;

// ---- from sound to words

/** open(): makes the source. name: of a file, null for the microphone. */
async function run(open, name) {
  if (busy) return;
  if (!(await mayContinue(name))) return;
  busy = true;
  player.stop();
  notice("");
  status(name === null ? "Asking for the microphone …" : "Decoding the file …");
  controls();
  let source = null;
  let failure = null;
  let done = "";
  try {
    source = await open();
    done = await recognise(source, name);
  } catch (error) {
    if (!(error instanceof Failure)) console.error(error);
    failure = error instanceof Failure ? error : new Failure("page", `Something went wrong: ${error.message}`);
  }
  source?.close();
  const missing = failure && listener ? listener.waiting : 0;
  gauges(null, 0, listener?.position);
  listener = null;
  busy = false;
  waveform.stop();
  meter.add(transcript.words.slice(-1));
  document.title = "Speech ReaLLM";
  status(failure ? "" : transcript.empty ? "Nothing was understood." : done);
  if (failure) notice(failure.message + (missing > 1 ? ` ${duration(missing)} of sound were not recognised.` : ""));
  if (failure?.code === "unauthorized") askForKey(true);
  keeper.save();
  controls();
}

/** Returns what there is to say when all went well. */
async function recognise(source, name) {
  if (transcript.empty) {
    meter.clear();
    peaks.clear();
    recorded.clear();
    keeper.begin();
  }
  transcript.name = name;
  // the strip counts through, whatever was recorded before
  peaks.seconds = transcript.duration;
  const isFile = source instanceof Recording;
  if (isFile) player.useFile(source.file, transcript.duration);
  else recordFrom(transcript.duration);
  let silence = 0;
  const current = new Listener({
    source,
    transcript,
    delay: chosenDelay(),
    key: key(),
    lookahead: server?.lookahead_chunks,
    onSound: (pcm) => {
      peaks.push(pcm, source.rate);
      if (!isFile) recorded.push(pcm, source.rate);
      silence = isSilent(pcm) ? silence + pcm.length / source.rate : 0;
    },
    onReady: (ready) => {
      waveform.chunk = ready.chunk_ms / 1000;
      waveform.wait = bound(ready.delay);
    },
    onState: () => controls(),
    onEvent: receive,
  });
  listener = current;
  $("latency").hidden = !source.live;
  const overview = source.live ? 0 : source.duration;
  const position = () => (source.live ? current.base + source.position() : current.position);
  waveform.run(() => {
    waveform.recognised = current.position;
    return position();
  }, overview);
  document.title = "● Speech ReaLLM";
  const wake = await navigator.wakeLock?.request("screen").catch(() => null);
  const begun = performance.now();
  const ticking = setInterval(() => {
    gauges(current, begun);
    status(describe(current, !isFile && silence > MUTED_SECONDS));
  }, 100);
  try {
    await current.run();
  } finally {
    clearInterval(ticking);
    wake?.release();
    if (current.lostSeconds > 0.1) {
      notice(`${duration(current.lostSeconds)} of sound were lost while the server was away for longer than two minutes.`);
    }
  }
  if (!source.live && !current.stopped) {
    return `Done: ${duration(source.duration)} of sound in ${duration((performance.now() - begun) / 1000)}.`;
  }
  return "Done.";
}

/** Even a quiet room is louder than this. */
const isSilent = (pcm) => pcm.every((sample) => sample > -3 && sample < 3);

/** The truth about what is going on, for the status line; it must change rarely, as screen readers read it out. */
function describe({ state, source, waiting, stopped }, muted) {
  const file = source instanceof Recording;
  if (state === "connecting") return "Connecting …";
  if (state === "lost") {
    const kept = stopped
      ? "The last words are still missing; press the button again to do without them."
      : !source.live
        ? "The rest of the file follows then."
        : waiting < MAX_WAITING_SECONDS
          ? "What you say meanwhile is kept."
          : "Of what you say meanwhile the last two minutes are kept.";
    return `The connection to the server is lost; trying again … ${kept}`;
  }
  if (state === "late") return "No answer from the server for some seconds; waiting …";
  if (state === "ending" && source.live) return "Writing the last words …";
  if (muted) return "Listening, but the microphone gives no sound. Is it muted?";
  const doing = file ? (source.live ? "Playing" : "Recognising") : "Listening";
  return source.live && waiting > BEHIND_SECONDS ? `${doing}; the text is some seconds behind` : doing;
}

function receive(message, result) {
  if (message.type === "partial") {
    const { segment, grown, added } = result;
    const before = transcript.words.at(-1 - added.length);
    if (grown) view.update(grown);
    view.add(segment, added);
    // the word before is complete once another follows
    if (added.length) meter.add([before, ...added.slice(0, -1)].filter(Boolean));
    saved = false;
    keeper.changed();
  } else {
    result.words.forEach((word) => view.update(word));
    meter.add(result.words);
    say(result.text);
    keeper.changed();
  }
  controls();
}

/** For screen readers: whole segments, as words alone would interrupt each other. */
function say(text) {
  const line = document.createElement("p");
  // a space, so that sentences do not run into one another when the lines are joined
  line.textContent = `${text.trim()} `;
  $("log").append(line);
  while ($("log").childElementCount > 20) $("log").firstChild.remove();
}

/**
 * How far it is: what has been recognised, and of a file the time left. current: a Listener, or null at the end, when
 * `reached` seconds of the transcript have been recognised.
 */
function gauges(current, begun = 0, reached = transcript.duration) {
  const { total, done, left } = current ? progress(current, begun) : { total: 0, done: reached, left: null };
  $("clock").textContent = clock(done, 1);
  $("total").textContent = total ? `of ${clock(total)}` : "";
  $("progress-line").hidden = !total;
  if (!total) return;
  $("progress").value = Math.min(1, done / total);
  $("left").textContent = left === null ? "" : `${clock(Math.ceil(left))} left`;
}

/** Seconds: total of a file (0 for the microphone), done, left (null while that is not known). */
function progress({ source, recognised, position, state }, begun) {
  const total = source instanceof Recording ? source.duration : 0;
  const elapsed = (performance.now() - begun) / 1000;
  let left = null;
  if (source.live) left = total - source.position();
  else if (state !== "lost" && elapsed > 1 && recognised > 0) left = (elapsed * (total - recognised)) / recognised;
  return { total, done: total ? Math.min(total, recognised) : position, left };
}

// ---- playing

function pick(word) {
  picked = word ?? picked;
  waveform.pick(word);
}

/** Plays from `seconds` of the transcript on, where its sound is kept. */
async function play(seconds) {
  // it would come back through the microphone, or sound twice
  if (busy && listener?.source.live) return;
  // the start of a word is an estimate
  if (await player.play(Math.max(0, seconds - 0.1))) controls();
}

function playedTo(seconds) {
  waveform.playAt(seconds);
  const at = seconds === null ? -1 : transcript.indexAt(seconds);
  view.mark(transcript.words[at] ?? null);
  if ((seconds !== null) !== ($("play").textContent === "Pause")) controls();
}

/** The microphone's sound from here on is kept, behind what was kept before if that joins on. */
function recordFrom(seconds) {
  if (recorded.empty || Math.abs(recorded.to - seconds) > 0.5) {
    recorded.clear();
    recorded.start = seconds;
  }
  player.useRecorded(recorded);
}

$("play").onclick = () => {
  if (player.playing) return player.stop();
  const from = picked && player.has(picked.start) ? picked.start : Math.max(0, recorded.empty ? 0 : recorded.from);
  return play(from + 0.1);
};

addEventListener("keydown", ({ key: pressed }) => pressed === "Escape" && player.stop());

// ---- controls

/** May what is on the page go on (microphone after microphone), or be replaced? */
async function mayContinue(name) {
  if (transcript.empty || (name === null && transcript.name === null)) return true;
  if (!(await mayLose())) return false;
  clear();
  return true;
}

/** Is what is on the page saved, or may it be lost? */
async function mayLose() {
  if (!saved) await keeper.save();
  return saved || confirmed();
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
  player.clear();
  recorded.clear();
  waveform.clear();
  meter.clear();
  keeper.begin();
  picked = null;
  $("log").replaceChildren();
  saved = true;
  gauges(null);
  status("");
  controls();
}

/** Puts an earlier transcript on the page; false if the one that is there is to stay. */
async function reopen(data) {
  if (busy || !(await mayLose())) return false;
  clear();
  transcript.restore(data);
  for (const segment of transcript.segments) view.add(segment, segment.words);
  scrollTo({ top: 0 });
  waveform.rest();
  gauges(null);
  status("Opened. Its sound was not kept.");
  controls();
  return true;
}

function controls() {
  const state = listener?.state;
  const again = transcript.name === null && !transcript.empty;
  const givesUp = listener?.stopped && state === "lost";
  $("listen").classList.toggle("on", Boolean(listener));
  $("dock").classList.toggle("running", busy);
  $("listen").disabled = busy && (!listener || (listener.stopped && !givesUp));
  const label = givesUp ? "Give up" : listener ? "Stop" : again ? "Go on listening" : "Start listening";
  if ($("listen-label").textContent !== label) $("listen-label").textContent = label;
  $("file").disabled = $("earlier-button").disabled = busy;
  for (const input of document.querySelectorAll(".choice input")) input.disabled = busy;
  for (const button of document.querySelectorAll(".actions button")) button.disabled = transcript.empty;
  $("clear").disabled ||= busy;
  const playable = player.blob !== null || !recorded.empty;
  $("play").disabled ||= !playable || (busy && Boolean(listener?.source.live));
  $("play").textContent = player.playing ? "Pause" : "Play";
  $("empty").hidden = busy || !transcript.empty;
  $("legend").hidden = transcript.empty;
  $("legend-play").hidden = !playable;
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
  listener?.stop();
  controls();
};

function openFile(file) {
  const aloud = document.querySelector("input[name=pace]:checked").value === "aloud";
  return run(() => Recording.open(file, aloud), file.name);
}

$("file").onchange = ({ target }) => {
  const [file] = target.files;
  if (file) openFile(file);
  // so that the same file may be chosen again
  target.value = "";
};

$("clear").onclick = async () => {
  if (await mayLose()) clear();
};
$("notice-close").onclick = () => notice("");
$("earlier-button").onclick = () => keeper.show();

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
  if (file && !busy) openFile(file);
});

// ---- taking the text along

takeAlong(transcript, (text) => {
  saved = true;
  if (!busy) status(text);
});

// what was recognised and is not saved is worth a question
addEventListener("beforeunload", (event) => {
  if (!saved || busy) event.preventDefault();
});
addEventListener("visibilitychange", () => document.hidden && !saved && keeper.save());

// ---- what the server offers

/** Seconds after its last sound at which a word must have been written, by the model's design. */
function bound(delay) {
  return server ? (server.chunk_ms / 1000) * (1 + server.lookahead_chunks + delay) : 0;
}

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
    // a code that this browser has no name for is shown as it is
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
    text.textContent = duration(bound(delay));
    label.append(input, text);
    $("delays").append(label);
  }
  $("delays").hidden = false;
}

function promise(delay) {
  $("promise").textContent =
    `Each word is written at most ${duration(bound(delay))} after it was spoken, plus the time to compute and to travel. ` +
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
