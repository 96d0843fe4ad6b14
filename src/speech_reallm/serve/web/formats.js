// Transcripts as text, JSON, SubRip and WebVTT: what `reallm transcribe --format` writes (formats.py).

import { cuesOf } from "./captions.js";

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
