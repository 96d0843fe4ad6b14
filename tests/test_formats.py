"""Transcripts in every format; subtitles that fit the screen."""

from __future__ import annotations

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.events import Final, Transcript, Word
from speech_reallm.formats import (
    FORMATS,
    JOINABLE,
    SUFFIXES,
    cues_of,
    to_ctm,
    to_json,
    to_srt,
    to_text,
    to_vtt,
)


def transcript(*segments: list[tuple[str, float, float]], file: str | None = "a b/my talk.wav") -> Transcript:
    finals = []
    for segment in segments:
        words = tuple(Word(w, start, end, 0.875, end + 0.5) for w, start, end in segment)
        finals.append(Final(" ".join(w.word for w in words), words, words[0].start, words[-1].end))
    return Transcript.of(finals, duration=10.0, seconds=0.5, file=file)


SMALL = transcript(
    [("hello", 0.5, 1.0), ("world", 1.0, 1.5)], [("it's", 3661.25, 3661.5), ("me", 3661.5, 3663)]
)
EMPTY = transcript()

words = st.tuples(st.text("abcdefghij'", min_size=1, max_size=50), st.floats(0.0, 1.5), st.floats(0.01, 1.0))


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Words with gaps and lengths as they may be, in segments."""
    now, segments = 0.0, []
    for segment in draw(st.lists(st.lists(words, min_size=1, max_size=30), max_size=4)):
        timed = []
        for word, gap, length in segment:
            start, now = now + gap, now + gap + length
            timed.append((word, start, now))
        segments.append(timed)
    return transcript(*segments)


def test_text() -> None:
    assert to_text(SMALL) == "hello world\nit's me\n"
    assert to_text(EMPTY) == ""


def test_json_is_one_line() -> None:
    line = to_json(SMALL)
    assert line.endswith("\n") and line.count("\n") == 1
    data = json.loads(line)
    assert list(data) == ["file", "duration", "text", "words", "rtf"]
    assert data["file"] == "a b/my talk.wav" and data["duration"] == 10.0 and data["rtf"] == 0.05
    assert data["text"] == "hello world it's me"
    assert data["words"][0] == {"word": "hello", "start": 0.5, "end": 1.0, "confidence": 0.875}
    assert json.loads(to_json(EMPTY))["words"] == []


def test_srt() -> None:
    assert to_srt(SMALL) == (
        "1\n00:00:00,500 --> 00:00:01,500\nhello world\n\n2\n01:01:01,250 --> 01:01:03,000\nit's me\n"
    )
    assert to_srt(EMPTY) == ""


def test_vtt() -> None:
    assert to_vtt(SMALL).startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.500\nhello world\n")
    assert "a&lt;b&gt; &amp;" in to_vtt(transcript([("a<b>", 0, 1), ("&", 1, 2)]))
    assert to_vtt(EMPTY) == "WEBVTT\n"


def test_ctm() -> None:
    assert to_ctm(SMALL).splitlines()[0] == "my_talk 1 0.50 0.50 hello 0.875"
    assert len(to_ctm(SMALL).splitlines()) == 4
    assert to_ctm(EMPTY) == ""
    assert to_ctm(transcript([("a", 0, 1)], file=None)).startswith("stream 1 ")


@settings(deadline=None)
@given(transcripts())
def test_cues_fit_and_lose_nothing(transcript: Transcript) -> None:
    cues = cues_of(transcript)
    assert " ".join(" ".join(lines) for _, _, lines in cues) == transcript.text
    before = 0.0
    for start, end, lines in cues:
        assert before <= start <= end
        assert 1 <= len(lines) <= 2
        assert all(len(line) <= 42 or " " not in line for line in lines)
        before = end
    times = re.findall(r"(\S+) --> (\S+)", to_srt(transcript))
    assert all(a <= b for a, b in times)


def test_cues_break_at_pauses_and_are_even() -> None:
    pause = transcript([("one", 0, 0.5), ("two", 2, 2.5)])
    assert [lines for _, _, lines in cues_of(pause)] == [["one"], ["two"]]
    text = str.split("this sentence is a little too long for just one line")
    cue = cues_of(transcript([(w, i / 4, i / 4 + 0.25) for i, w in enumerate(text)]))[0]
    assert cue[2] == ["this sentence is a little", "too long for just one line"]


def test_every_format_is_complete() -> None:
    assert set(FORMATS) == set(SUFFIXES) and set(FORMATS) > JOINABLE
    from speech_reallm.cli.transcribe import FORMATS as CHOICES

    assert set(CHOICES) == set(FORMATS)
