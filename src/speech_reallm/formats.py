"""Transcripts as text, JSON, JSON lines, SubRip, WebVTT and NIST CTM."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from .captions import cues_of
from .events import Final, Transcript, Word
from .punctuation import CLOSING


def segment_text(segment: Final, file: str | None = None) -> str:
    """The line that a segment is in `text`."""
    return f"{segment.text}\n"


def segment_jsonl(segment: Final, file: str | None = None) -> str:
    """The line that a segment is in `jsonl`: an object with file, start, end, text, words."""
    fields = {
        "file": file,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "words": _words(segment.words),
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"


def to_text(transcript: Transcript) -> str:
    """One line a segment; nothing for an empty transcript."""
    return "".join(segment_text(segment) for segment in transcript.segments)


def to_jsonl(transcript: Transcript) -> str:
    """One object a line and a segment: file, start, end, text, words."""
    return "".join(segment_jsonl(segment, transcript.file) for segment in transcript.segments)


def to_json(transcript: Transcript, with_speed: bool = False) -> str:
    """One object on one line: file, duration, text, words (word, start, end, confidence).

    The same recording gives the same line every time: how fast it went is no part of it. with_speed adds `rtf`, for
    what comes once and cannot be read again. `complete` (false) and `warnings` are there only where something of the
    file could not be read.
    """
    fields: dict[str, object] = {
        "file": transcript.file,
        "duration": transcript.duration,
        "text": transcript.text,
        "words": _words(transcript.words),
    }
    if with_speed:
        fields["rtf"] = transcript.rtf
    if transcript.warnings:
        fields |= {"complete": False, "warnings": list(transcript.warnings)}
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _words(words: Sequence[Word]) -> list[dict[str, str | float]]:
    return [
        {
            "word": word.word,
            "start": word.start,
            "end": word.end,
            "confidence": word.confidence,
        }
        for word in words
    ]


def to_srt(transcript: Transcript) -> str:
    """SubRip subtitles."""
    cues = []
    for number, (start, end, lines) in enumerate(cues_of(transcript), 1):
        cues.append(f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n" + "\n".join(lines) + "\n")
    return "\n".join(cues)


def to_vtt(transcript: Transcript) -> str:
    """WebVTT subtitles."""
    cues = ["WEBVTT\n"]
    for start, end, lines in cues_of(transcript):
        text = "\n".join(lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text}\n")
    return "\n".join(cues)


def to_ctm(transcript: Transcript, name: str | None = None) -> str:
    """NIST CTM: file, channel, start, duration, word, confidence; one line a word.

    name: of the recording; None: that of the file, without folders and suffix.

    Words are without the punctuation after them, which the programs that score this format take for letters.
    """
    name = "_".join((name or Path(transcript.file or "stream").stem).split()) or "stream"
    lines = []
    for word in transcript.words:
        text = word.word.rstrip(CLOSING) or word.word
        seconds = max(0.0, word.end - word.start)
        lines.append(f"{name} 1 {word.start:.2f} {seconds:.2f} {text} {word.confidence:.3f}\n")
    return "".join(lines)


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "text": to_text,
    "json": to_json,
    "jsonl": to_jsonl,
    "srt": to_srt,
    "vtt": to_vtt,
    "ctm": to_ctm,
}
SUFFIXES = {
    "text": ".txt",
    "json": ".json",
    "jsonl": ".jsonl",
    "srt": ".srt",
    "vtt": ".vtt",
    "ctm": ".ctm",
}
# several transcripts of these may follow one another in one file
JOINABLE = frozenset({"text", "json", "jsonl", "ctm"})
# a transcript in one of these is its segments one after another, so that it can be written while it grows
BY_SEGMENT: dict[str, Callable[[Final, str | None], str]] = {"text": segment_text, "jsonl": segment_jsonl}


def _clock(seconds: float, point: str) -> str:
    """3661.5 -> 01:01:01,500"""
    milliseconds = round(max(0.0, seconds) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
