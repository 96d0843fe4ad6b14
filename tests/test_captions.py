"""Subtitles: nothing is lost, everything fits, and breaks are where a captioner would make them."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from transcripts import transcript, transcripts

from speech_reallm.captions import (
    GAP,
    LEAST_SECONDS,
    LINE_CHARACTERS,
    MOST_SECONDS,
    PAUSE,
    READING_SPEED,
    cues_of,
)
from speech_reallm.events import Transcript

CLOSE = 1e-6


def spoken(text: str, start: float = 0.0, each: float = 0.3) -> list[tuple[str, float, float]]:
    """Words that follow one another without a pause."""
    return [(word, start + i * each, start + (i + 1) * each) for i, word in enumerate(text.split())]


def texts(*segments: list[tuple[str, float, float]]) -> list[str]:
    return [" ".join(cue.lines) for cue in cues_of(transcript(*segments))]


@settings(max_examples=40, deadline=None)
@given(transcripts())
def test_nothing_is_lost_and_everything_fits(transcript: Transcript) -> None:
    cues = cues_of(transcript)
    assert " ".join(" ".join(cue.lines) for cue in cues) == transcript.text
    for cue in cues:
        assert 1 <= len(cue.lines) <= 2
        assert all(line and (len(line) <= LINE_CHARACTERS or " " not in line) for line in cue.lines)


@settings(max_examples=40, deadline=None)
@given(transcripts())
def test_cues_come_with_their_words_and_one_at_a_time(transcript: Transcript) -> None:
    words, before = list(transcript.words), 0.0
    for cue in cues_of(transcript):
        mine = [words.pop(0) for _ in " ".join(cue.lines).split()]
        assert cue.start == mine[0].start >= before - CLOSE
        assert cue.start <= cue.end <= cue.start + MOST_SECONDS + CLOSE
        assert all(b.start - a.end < PAUSE for a, b in pairwise(mine))
        before = cue.end


@settings(max_examples=40, deadline=None)
@given(transcripts())
def test_cues_stay_long_enough_where_there_is_room(transcript: Transcript) -> None:
    cues, words = cues_of(transcript), list(transcript.words)
    for cue, after in zip(cues, [*cues, None][1:], strict=True):
        mine = [words.pop(0) for _ in " ".join(cue.lines).split()]
        wanted = max(LEAST_SECONDS, len(" ".join(cue.lines)) / READING_SPEED, mine[-1].end - cue.start)
        room = after.start - GAP - cue.start if after else wanted
        assert cue.end - cue.start >= min(wanted, room, MOST_SECONDS) - CLOSE


def test_a_pause_and_a_segment_end_a_cue() -> None:
    assert texts([("one", 0, 0.5), ("two", 2, 2.5)]) == ["one", "two"]
    assert texts([("one", 0, 0.5)], [("two", 0.5, 1.0)]) == ["one", "two"]
    assert texts([("one", 0, 0.5), ("two", 1.0, 1.5)]) == ["one two"]


def test_a_long_sentence_breaks_at_its_pause() -> None:
    first = spoken("when the weather is fine we go down to the river")
    second = spoken("and in the evening we all come back along the other side of it", first[-1][2] + 0.4)
    assert texts(first + second)[0] == "when the weather is fine we go down to the river"


def test_no_cue_ends_in_an_article() -> None:
    text = "he put all of the letters that had come in the morning on to the table in the hall and went up"
    for cue in texts(spoken(text, each=0.25))[:-1]:
        assert cue.split()[-1] not in {"a", "the", "of", "in", "on", "to", "and", "had", "that"}, cue


def test_two_lines_are_about_even_and_do_not_end_in_an_article() -> None:
    (cue,) = cues_of(transcript(spoken("this sentence is a little too long for just one line")))
    assert cue.lines == ["this sentence is a little", "too long for just one line"]
    (cue,) = cues_of(transcript(spoken("this sentence is breaking before the one long article")))
    assert cue.lines == ["this sentence is breaking", "before the one long article"]
    (cue,) = cues_of(transcript([("x" * 60, 0, 1), ("and", 1, 1.2), ("more", 1.2, 1.5)]))
    assert cue.lines == ["x" * 60, "and more"]


def test_sentences_end_cues_and_titles_do_not_end_sentences() -> None:
    text = "Mr. Brown, it seems, was late. He had walked all the way from St. Paul in the rain. Why was that?"
    assert texts(spoken(text)) == [
        "Mr. Brown, it seems, was late.",
        "He had walked all the way from St. Paul in the rain.",
        "Why was that?",
    ]
    # nor do initials, but this does
    text = (
        "The letter that they found was for George W. Bush and for J. F. K. alone, as it was I. They left it"
    )
    assert texts(spoken(text))[-1] == "They left it"


def test_commas_are_good_places_but_not_for_every_cue() -> None:
    text = (
        "Come in, sit down, and tell me what you have seen, although I can hardly believe that it was there"
    )
    assert texts(spoken(text)) == [
        "Come in, sit down, and tell me what you have seen,",
        "although I can hardly believe that it was there",
    ]


@pytest.mark.parametrize(
    ("text", "upper"),
    [
        # the halves would be more even elsewhere
        ("No, it was not true. There never was anything like it", "No, it was not true."),
        ("Nobody knows. But they all say that it was like that", "Nobody knows."),
        ("Once more he went down there, always thinking of them", "Once more he went down there,"),
        ("They never knew what Dr. Brown had told their mother", "They never knew what"),
        ("This sentence was broken before “the” one long article", "This sentence was broken"),
    ],
)
def test_lines_break_at_punctuation(text: str, upper: str) -> None:
    (cue,) = cues_of(transcript(spoken(text, each=0.1)))
    assert cue.lines == [upper, text[len(upper) + 1 :]]


def test_case_makes_no_difference() -> None:
    text = "he put all of the letters that had come in the morning on to the table and mr brown went up to his room"
    breaks = [cue.split() for cue in texts(spoken(text))]
    for written in (text.upper(), text.title()):
        assert [cue.lower().split() for cue in texts(spoken(written))] == breaks


def test_what_is_said_fast_stays_to_be_read() -> None:
    text = "these words were said in one second only"
    (cue,) = cues_of(transcript(spoken(text, each=1 / 8)))
    assert cue.end - cue.start == pytest.approx(len(text) / READING_SPEED)
    (cue,) = cues_of(transcript([("no", 5.0, 5.2)]))
    assert cue.end - cue.start == pytest.approx(LEAST_SECONDS)


def test_cues_that_follow_closely_neither_flicker_nor_touch() -> None:
    first, second = cues_of(transcript([("first", 0, 1.5)], [("second", 1.7, 3.0)]))
    assert second.start - first.end == pytest.approx(GAP)
    first, second = cues_of(transcript([("first", 0, 1.5)], [("second", 3.7, 5.0)]))
    assert first.end == pytest.approx(1.5)


def test_a_segment_without_end_takes_linear_time() -> None:
    long = transcript(spoken("some words that go on " * 400))
    started = time.process_time()
    cues = cues_of(long)
    # measured: 0.7 s on a busy core; were every pair of words looked at, minutes
    assert time.process_time() - started < 10
    assert cues[-1].end <= 600 + LEAST_SECONDS
