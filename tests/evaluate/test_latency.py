"""Delays of a recogniser that shows each word at a known time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from evaluate_fakes import RATE, FakeClock, FakeRecognizer, word

from speech_reallm.evaluate.latency import (
    ShownWord,
    TimedWord,
    emission_delays,
    live_clock,
    percentile,
    percentiles,
)
from speech_reallm.evaluate.run import Screen, stream_utterance
from speech_reallm.evaluate.wer import make_normalizer
from speech_reallm.events import Final, Partial
from speech_reallm.recognizer import Recognizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fake_model import speech, write_model

NORMALIZE = make_normalizer("librispeech")


def test_delay_counts_audio_fed_and_computing() -> None:
    # 1.0 s: feeds end at 0.24, 0.48, 0.72, 0.96 and 1.0 s; each takes 50 ms, the flush 30 ms
    clock = FakeClock()
    words = [word("one", 0.48), word("two", 0.96), word("three", 1.72)]
    recognizer = FakeRecognizer(words, clock, cost=0.05, finish_cost=0.03)
    streamed = stream_utterance(recognizer, np.zeros(RATE, np.float32), clock)
    assert recognizer.feeds == [3840] * 4 + [640]
    assert streamed.compute == pytest.approx([0.05] * 5)
    assert streamed.finalize == pytest.approx(0.03)
    # the last feed (0.04 s of audio) arrives at 1.0 s, before the one before it is done at 1.01 s: it waits;
    # the flush follows at once, however many zeros are fed in it
    assert [w.shown for w in streamed.shown] == pytest.approx([0.53, 1.01, 1.09])
    assert streamed.late == 1

    spoken = [TimedWord("ONE", 0.0, 0.3), TimedWord("TWO", 0.4, 0.7), TimedWord("THREE", 0.7, 0.99)]
    assert emission_delays(spoken, streamed.shown, NORMALIZE) == pytest.approx([230.0, 310.0, 100.0])


def test_only_right_words_have_a_delay() -> None:
    spoken = [TimedWord("a", 0, 1.0), TimedWord("b", 1, 2.0), TimedWord("c", 2, 3.0)]
    heard = [ShownWord("um", 0.5), ShownWord("a", 1.5), ShownWord("x", 2.5), ShownWord("C.", 3.25)]
    assert emission_delays(spoken, heard, NORMALIZE) == pytest.approx([500.0, 250.0])
    assert emission_delays([], heard, NORMALIZE) == []
    assert emission_delays(spoken, [], NORMALIZE) == []


def test_a_word_of_two_parts_is_timed_as_one() -> None:
    spoken = [TimedWord("twenty", 0, 0.5), TimedWord("one", 0.5, 1.0)]
    assert emission_delays(spoken, [ShownWord("Twenty-one", 1.5)], NORMALIZE) == pytest.approx(
        [1000.0, 500.0]
    )


def test_punctuation_and_titles_are_the_same_words() -> None:
    spoken = [TimedWord("mister", 0, 1.0), TimedWord("brown", 1, 2.0), TimedWord("left", 2, 3.0)]
    heard = [ShownWord("Mr.", 1.5), ShownWord("Brown,", 2.5), ShownWord("left.", 3.25)]
    assert emission_delays(spoken, heard, NORMALIZE) == pytest.approx([500.0, 500.0, 250.0])


def test_a_word_is_shown_with_its_last_letter() -> None:
    screen = Screen()
    for call, text in enumerate(["It see", "ms", ", late", ".", " -"]):
        screen.take([Partial(text, 0.0)], call)
    screen.take([Final("It seems, late. -", (), 0.0, 1.0)], 5)
    assert screen.words == [("It", 0), ("seems,", 1), ("late.", 2), ("-", 4)]


def test_a_word_may_be_early() -> None:
    assert emission_delays([TimedWord("a", 0, 1.0)], [ShownWord("a", 0.9)], NORMALIZE) == pytest.approx(
        [-100.0]
    )


def test_live_clock() -> None:
    # faster than speech: each feed is done a computing time after it arrived
    assert live_clock([1, 2, 3], [0.25, 0.5, 0.25]) == [1.25, 2.5, 3.25]
    # slower than speech: the backlog grows
    assert live_clock([1, 2, 3], [2.0, 2.0, 2.0]) == [3.0, 5.0, 7.0]


def test_percentiles() -> None:
    assert percentiles([], 50, 99) == {"p50": None, "p99": None}
    assert percentile([3.0], 99) == 3.0
    values = [5.0, 1.0, 4.0, 2.0, 3.0, 10.0]
    for q in (0, 10, 50, 90, 99, 100):
        assert percentile(values, q) == pytest.approx(float(np.percentile(values, q)))


def test_audio_shorter_than_a_feed_and_none_at_all() -> None:
    recognizer = FakeRecognizer([word("a", 0.1)])
    streamed = stream_utterance(recognizer, np.zeros(1600, np.float32))
    assert (len(streamed.compute), streamed.late, streamed.duration) == (1, 0, 0.1)
    silent = stream_utterance(FakeRecognizer([]), np.zeros(0, np.float32))
    assert (silent.compute, silent.shown, silent.duration) == ((), (), 0.0)


def test_words_of_a_real_stream_are_those_of_its_transcript(tmp_path: Path) -> None:
    recognizer = Recognizer.load(write_model(tmp_path / "model", blank_bias=2.0))
    audio = speech(7.3)
    streamed = stream_utterance(recognizer, audio)
    assert len(streamed.compute) == 31
    assert len(streamed.shown) > 20
    assert " ".join(w.word for w in streamed.shown) == streamed.text
    times = [w.shown for w in streamed.shown]
    assert times == sorted(times)
    # what the stream itself says of its words, without computing time, is never later
    stream = recognizer.stream(sample_rate=RATE)
    stream.accept(audio)
    for word_, shown in zip(stream.finish().words, times, strict=True):
        assert word_.emitted <= shown + 1e-6
