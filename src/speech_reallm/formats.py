"""Transcripts as text, JSON lines, SubRip, WebVTT and NIST CTM."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from .events import Transcript, Word

LINE_CHARACTERS = 42
CUE_LINES = 2
# a cue ends at a pause of so many seconds, and when it has been on screen for so long
CUE_PAUSE = 0.7
CUE_SECONDS = 6.0
# a word or two should stay long enough to be read, if the next cue leaves room
CUE_LEAST_SECONDS = 1.0


def to_text(transcript: Transcript) -> str:
    """One line a segment; nothing for an empty transcript."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments)


def to_json(transcript: Transcript) -> str:
    """One object on one line: file, duration, text, words (word, start, end, confidence), rtf."""
    words = [
        {
            "word": word.word,
            "start": round(word.start, 3),
            "end": round(word.end, 3),
            "confidence": round(word.confidence, 4),
        }
        for word in transcript.words
    ]
    fields = {
        "file": transcript.file,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "words": words,
        "rtf": round(transcript.rtf, 4),
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"


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


def to_ctm(transcript: Transcript) -> str:
    """NIST CTM: file, channel, start, duration, word, confidence; one line a word."""
    name = "_".join(Path(transcript.file or "stream").stem.split()) or "stream"
    return "".join(
        f"{name} 1 {word.start:.2f} {max(0.0, word.end - word.start):.2f} {word.word} {word.confidence:.3f}\n"
        for word in transcript.words
    )


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "text": to_text,
    "json": to_json,
    "srt": to_srt,
    "vtt": to_vtt,
    "ctm": to_ctm,
}
SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "ctm": ".ctm"}
# several transcripts of these may follow one another in one file
JOINABLE = frozenset({"text", "json", "ctm"})


def cues_of(transcript: Transcript) -> list[tuple[float, float, list[str]]]:
    """Subtitles: (start, end, lines), in seconds; at most two lines of at most 42 characters.

    A cue breaks where the speaker pauses or a segment ends, and where it would get too long. A word of
    more than 42 characters has a line to itself.
    """
    groups: list[list[Word]] = []
    for segment in transcript.segments:
        group: list[Word] = []
        for word in segment.words:
            if group and _breaks(group, word):
                groups.append(group)
                group = []
            group.append(word)
        if group:
            groups.append(group)
    cues = []
    for i, group in enumerate(groups):
        start, end = group[0].start, max(group[-1].end, group[0].start + CUE_LEAST_SECONDS)
        if i + 1 < len(groups):
            # a cue must not run into the next
            end = max(group[-1].end, min(end, groups[i + 1][0].start))
        cues.append((start, end, _lines([word.word for word in group])))
    return cues


def _breaks(group: Sequence[Word], word: Word) -> bool:
    pause = word.start - group[-1].end >= CUE_PAUSE
    long = word.end - group[0].start > CUE_SECONDS
    return pause or long or len(_fill([*(w.word for w in group), word.word], LINE_CHARACTERS)) > CUE_LINES


def _fill(words: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _lines(words: Sequence[str]) -> list[str]:
    """As few lines as possible, then as even as possible."""
    best = _fill(words, LINE_CHARACTERS)
    if len(best) < 2:
        return best
    for width in range(1, LINE_CHARACTERS):
        lines = _fill(words, width)
        if len(lines) <= len(best) and max(map(len, lines)) <= LINE_CHARACTERS:
            return lines
    return best


def _clock(seconds: float, point: str) -> str:
    """3661.5 -> 01:01:01,500"""
    milliseconds = round(max(0.0, seconds) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
