// Transcripts as text, JSON, SubRip and WebVTT: what `reallm transcribe --format` writes (formats.py).

const LINE_CHARACTERS = 42;
const CUE_LINES = 2;
const CUE_PAUSE = 0.7;
const CUE_SECONDS = 6;
const CUE_LEAST_SECONDS = 1;

export const FORMATS = {
  txt: { type: "text/plain", write: toText },
  srt: { type: "application/x-subrip", write: toSrt },
  vtt: { type: "text/vtt", write: toVtt },
  json: { type: "application/json", write: toJson },
};

/** One line a segment. */
export function toText({ segments }) {
  return segments.map(({ text }) => `${text}\n`).join("");
}

export function toJson({ name, duration, segments }) {
  const words = segments.flatMap((segment) => segment.words);
  return `${JSON.stringify({
    file: name,
    duration: round(duration, 3),
    text: segments.map(({ text }) => text).join(" "),
    words: words.map(({ word, start, end, confidence }) => ({
      word,
      start: round(start, 3),
      end: round(end, 3),
      confidence: round(confidence, 4),
    })),
  })}\n`;
}

export function toSrt({ segments }) {
  return cuesOf(segments)
    .map(({ start, end, lines }, i) => `${i + 1}\n${clock(start, ",")} --> ${clock(end, ",")}\n${lines.join("\n")}\n`)
    .join("\n");
}

export function toVtt({ segments }) {
  const cues = cuesOf(segments).map(({ start, end, lines }) => {
    const text = lines.join("\n").replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
    return `${clock(start, ".")} --> ${clock(end, ".")}\n${text}\n`;
  });
  return ["WEBVTT\n", ...cues].join("\n");
}

/** Subtitles [{start, end, lines}]: they break at pauses, at the ends of segments, and where they would get too long. */
export function cuesOf(segments) {
  const groups = [];
  for (const { words } of segments) {
    let group = [];
    for (const word of words) {
      if (group.length && breaks(group, word)) {
        groups.push(group);
        group = [];
      }
      group.push(word);
    }
    if (group.length) groups.push(group);
  }
  return groups.map((group, i) => {
    const { start } = group[0];
    const last = group.at(-1).end;
    let end = Math.max(last, start + CUE_LEAST_SECONDS);
    // a cue must not run into the next
    if (i + 1 < groups.length) end = Math.max(last, Math.min(end, groups[i + 1][0].start));
    return { start, end, lines: linesOf(group.map(({ word }) => word)) };
  });
}

function breaks(group, word) {
  if (word.start - group.at(-1).end >= CUE_PAUSE || word.end - group[0].start > CUE_SECONDS) return true;
  return fill([...group, word].map((w) => w.word), LINE_CHARACTERS).length > CUE_LINES;
}

const length = (line) => [...line].length;

function fill(words, width) {
  const lines = [];
  for (const word of words) {
    if (lines.length && length(lines.at(-1)) + 1 + length(word) <= width) lines.push(`${lines.pop()} ${word}`);
    else lines.push(word);
  }
  return lines;
}

/** As few lines as possible, then as even as possible. */
function linesOf(words) {
  const best = fill(words, LINE_CHARACTERS);
  if (best.length < 2) return best;
  for (let width = 1; width < LINE_CHARACTERS; width++) {
    const lines = fill(words, width);
    if (lines.length <= best.length && lines.every((line) => length(line) <= LINE_CHARACTERS)) return lines;
  }
  return best;
}

const round = (value, digits) => Math.round(value * 10 ** digits) / 10 ** digits;

/** 3661.5 -> 01:01:01,500 */
function clock(seconds, point) {
  const total = Math.round(Math.max(0, seconds) * 1000);
  const part = (value, width) => String(value).padStart(width, "0");
  const minutes = Math.floor(total / 60000);
  const hours = part(Math.floor(minutes / 60), 2);
  const rest = part(Math.floor((total % 60000) / 1000), 2);
  return `${hours}:${part(minutes % 60, 2)}:${rest}${point}${part(total % 1000, 3)}`;
}
