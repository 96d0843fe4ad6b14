"""Transcripts in every format; subtitles that fit the screen."""

from __future__ import annotations

import json
import re

from hypothesis import given, settings
from transcripts import transcript, transcripts

from speech_reallm.events import Transcript
from speech_reallm.formats import (
    BY_SEGMENT,
    FORMATS,
    JOINABLE,
    SUFFIXES,
    to_ctm,
    to_json,
    to_jsonl,
    to_srt,
    to_text,
    to_vtt,
)

SMALL = transcript(
    [("hello", 0.5, 1.0), ("world", 1.0, 1.5)], [("it's", 3661.25, 3661.5), ("me", 3661.5, 3663)]
)
EMPTY = transcript()


def test_text() -> None:
    assert to_text(SMALL) == "hello world\nit's me\n"
    assert to_text(EMPTY) == ""


def test_json_is_one_line() -> None:
    line = to_json(SMALL)
    assert line.endswith("\n") and line.count("\n") == 1
    data = json.loads(line)
    assert list(data) == ["file", "duration", "text", "words"]
    assert data["file"] == "a b/my talk.wav" and data["duration"] == 10.0
    assert data["text"] == "hello world it's me"
    assert data["words"][0] == {"word": "hello", "start": 0.5, "end": 1.0, "confidence": 0.875}
    assert json.loads(to_json(EMPTY))["words"] == []
    # how fast it went only where it is asked for: the same recording gives the same line
    assert "rtf" not in json.loads(line)
    assert json.loads(to_json(SMALL, with_speed=True))["rtf"] == SMALL.rtf


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
    assert to_ctm(SMALL, "day 1/talk").startswith("day_1/talk 1 0.50 ")
    # as it is scored: words as they are written, but for the punctuation after them
    said = transcript([("Mr.", 0, 1), ("O'Brien's,", 1, 2), ("twenty-one...", 2, 3), ("?", 3, 4)])
    assert [line.split()[4] for line in to_ctm(said).splitlines()] == ["Mr", "O'Brien's", "twenty-one", "?"]


@settings(max_examples=30, deadline=None)
@given(transcripts())
def test_jsonl_is_the_segments_one_after_another(transcript: Transcript) -> None:
    rows = [json.loads(line) for line in to_jsonl(transcript).splitlines()]
    assert [row["text"] for row in rows] == [segment.text for segment in transcript.segments]
    assert all(list(row) == ["file", "start", "end", "text", "words"] for row in rows)
    assert [word for row in rows for word in row["words"]] == json.loads(to_json(transcript))["words"]
    for name, one in BY_SEGMENT.items():
        assert FORMATS[name](transcript) == "".join(one(s, transcript.file) for s in transcript.segments)


@settings(max_examples=30, deadline=None)
@given(transcripts())
def test_times_of_subtitles_never_run_backwards(transcript: Transcript) -> None:
    clocks = re.findall(r"(\S+) --> (\S+)", to_srt(transcript))
    times = [clock for pair in clocks for clock in pair]
    assert times == sorted(times)
    assert [pair[0].replace(",", ".") for pair in clocks] == re.findall(r"(\S+) -->", to_vtt(transcript))


def test_every_format_is_complete() -> None:
    assert set(FORMATS) == set(SUFFIXES) and set(FORMATS) > JOINABLE > set(BY_SEGMENT)
    from speech_reallm.cli.transcribe import FORMATS as CHOICES

    assert set(CHOICES) == set(FORMATS)
