"""An end-point needs silence in the sound as well as in the text; proposals are confirmed or retracted."""

from __future__ import annotations

import numpy as np
import pytest

from speech_reallm import (
    Endpoint,
    EndpointProposed,
    EndpointRetracted,
    Event,
    Final,
    Partial,
    Recognizer,
    SpeechStarted,
    UserError,
)
from speech_reallm.endpoint import MAX_PAUSES, Decision, Endpointer, SoundActivity

RATE = 16000
CHUNK = 0.24


def room(seconds: float, level: float = 1e-3, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (level * noise).astype(np.float32)


def voice(seconds: float, level: float = 0.1) -> np.ndarray:
    """Harmonics of a deep voice, in the noise of the room."""
    t = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 20))
    return (level * tone).astype(np.float32) + room(seconds, seed=1)


def pauses(*parts: np.ndarray, gain: float = 1.0) -> tuple[list[tuple[float, float]], float | None]:
    audio = np.concatenate(parts) * np.float32(gain)
    activity = SoundActivity()
    for start in range(0, len(audio) - 3839, 3840):
        activity.push(audio[start : start + 3840])
    return [p for p in activity.pauses if p[1] - p[0] > 0.1], activity.silent_since


TALK = (room(0.96), voice(1.2), room(0.48), voice(0.72), room(1.2))


@pytest.mark.parametrize("gain", [1.0, 0.05, 5.0])
def test_pauses_are_where_they_are_whatever_the_level(gain: float) -> None:
    (first, second), since = pauses(*TALK, gain=gain)
    assert first == (0.0, pytest.approx(0.96, abs=0.06))
    assert second == pytest.approx((2.16, 2.64), abs=0.06) and since == pytest.approx(3.36, abs=0.06)


def test_hum_and_rumble_are_no_sound() -> None:
    t = np.arange(round(4.56 * RATE)) / RATE
    for hum in (0.3 * np.sin(2 * np.pi * 50 * t), 0.3 * np.sin(2 * np.pi * 20 * t) + 0.2):
        found, _ = pauses(np.concatenate(TALK) + hum.astype(np.float32))
        assert found[1] == pytest.approx((2.16, 2.64), abs=0.06)


def test_a_click_does_not_interrupt_silence_nor_a_closed_stop_sound() -> None:
    click = np.zeros(80, np.float32)
    click[:40] = 0.5
    quiet = room(1.2)
    quiet[8000:8080] += click
    found, since = pauses(room(0.96), voice(1.2), quiet)
    assert len(found) == 1 and since == pytest.approx(2.16, abs=0.06)
    found, _ = pauses(room(0.96), voice(0.48), room(0.04), voice(0.68), room(0.48))
    assert len(found) == 1


def test_a_muted_line_says_nothing_about_the_room() -> None:
    found, since = pauses(np.zeros(RATE * 48 // 25, np.float32), *TALK)
    assert found[-1] == pytest.approx((4.08, 4.56), abs=0.06) and since == pytest.approx(5.28, abs=0.06)


def test_the_level_of_the_room_is_followed_and_memory_is_constant() -> None:
    activity = SoundActivity()
    for _ in range(40):
        activity.push(room(0.24))
    # a fan is switched on; after a few seconds it is part of the room
    for _ in range(30):
        activity.push(room(0.24, 0.02))
    assert activity.silent_since is not None
    for _ in range(100):
        activity.push(voice(0.24))
        activity.push(room(0.24))
    assert len(activity.pauses) == MAX_PAUSES and len(activity._floors[0]) < 50


class Turn:
    """An endpointer, its sound and its text given chunk by chunk. Look-ahead and delay are one chunk each."""

    def __init__(self, silence: float | None, sound: np.ndarray) -> None:
        self.endpointer = Endpointer(silence, CHUNK, lookahead=1, delay=1)
        size = round(CHUNK * RATE)
        self.endpointer.receive(sound[: len(sound) // size * size].reshape(-1, size))
        self.index = 0

    def step(self, word: bool = False) -> Decision:
        before = self.endpointer.advance(self.index)
        if word:
            self.endpointer.word(self.index - 1)
        after = self.endpointer.after(self.index, word)
        self.index += 1
        return Decision(before.proposed or after.proposed, before.retracted, after.confirmed)

    def run(self, words: set[int], chunks: int) -> list[tuple[int, Decision]]:
        steps = [(i, self.step(i in words)) for i in range(chunks)]
        return [(i, decision) for i, decision in steps if decision != Decision()]


def test_a_long_word_is_no_pause() -> None:
    # the text is silent for a second, the sound is not
    assert Turn(0.35, np.concatenate([room(0.48), voice(3)])).run({3, 8}, 12) == []


def test_an_end_is_proposed_and_confirmed() -> None:
    sound = np.concatenate([room(0.96), voice(0.96), room(2)])
    turn = Turn(0.35, sound)
    # the sound ends at 1.92 s; with embedding 7 it was received to 2.16 s, and the last word is yet to come
    (first, proposed), (last, confirmed) = turn.run({5, 8}, 12)
    assert (first, proposed.proposed) == (7, pytest.approx(1.92, abs=0.05))
    assert 9 <= last <= 10 and confirmed.confirmed == pytest.approx(1.92 + 0.35, abs=0.05)
    assert not turn.endpointer.in_turn


def test_a_short_pause_is_proposed_and_retracted() -> None:
    sound = np.concatenate([room(0.96), voice(0.96), room(0.3), voice(0.9), room(1)])
    decisions = Turn(0.5, sound).run({6, 7, 12}, 17)
    assert decisions[0][1].proposed is not None
    assert decisions[1][1].retracted == pytest.approx(2.22, abs=0.06)
    assert decisions[-1][1].confirmed == pytest.approx(3.12 + 0.5, abs=0.06)
    assert sum(d.confirmed is not None for _, d in decisions) == 1


def test_where_the_sound_never_rests_the_text_ends_the_turn() -> None:
    music = np.concatenate([room(0.96), voice(6)])
    (last, decision), *_ = Turn(0.5, music).run({6}, 24)
    assert decision.confirmed is not None and (last - 6) * CHUNK >= 2.5


def test_without_contrast_the_text_decides() -> None:
    (last, decision), *_ = Turn(0.5, room(6, 0.1)).run({6}, 24)
    assert decision.confirmed is not None and last == 6 + 3


def test_no_silence_no_end() -> None:
    sound = np.concatenate([room(0.96), voice(0.96), room(4)])
    assert all(d.confirmed is None for _, d in Turn(None, sound).run({5, 8}, 20))


def test_a_pause_that_is_over_ends_the_turn_before_the_next_word() -> None:
    sound = np.concatenate([room(0.96), voice(0.96), room(0.48), voice(2)])
    turn = Turn(0.35, sound)
    for index in range(9):
        assert turn.step(index in (5, 8)).confirmed is None
    turn.endpointer.advance(9)
    # a word of the chunk that the pause ends in still belongs to it, the next does not
    assert turn.endpointer.ends_before(8) is None
    assert turn.endpointer.ends_before(11) == pytest.approx(1.92 + 0.35, abs=0.05)


def of(events: list[Event], kind: type) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def talk_with_pauses() -> np.ndarray:
    from fake_model import speech

    quiet = np.zeros(RATE, np.float32)
    return np.concatenate([speech(1.5), quiet, speech(1.2, 1), quiet[:3000], speech(1.0, 2), quiet])


def test_turn_events_are_in_order_and_change_nothing_else(recognizer: Recognizer) -> None:
    def run(cut: int, **options: bool) -> list[Event]:
        stream, events = recognizer.stream(endpoint_silence=0.4, **options), []
        audio = talk_with_pauses()
        for start in range(0, len(audio), cut):
            events += stream.accept(audio[start : start + cut])
        return events + list(stream.finish().events)

    with_turns = run(1000, turn_events=True)
    assert with_turns == run(7777, turn_events=True)
    turns = (SpeechStarted, EndpointProposed, EndpointRetracted)
    assert [e for e in with_turns if not isinstance(e, turns)] == run(1000)
    assert len(of(with_turns, SpeechStarted)) >= len(of(with_turns, Endpoint)) >= 1
    in_turn = proposed = False
    for event in with_turns:
        if isinstance(event, SpeechStarted):
            assert not in_turn
            in_turn = True
        elif isinstance(event, Partial):
            assert in_turn
        elif isinstance(event, EndpointProposed):
            assert in_turn and not proposed
            proposed = True
        elif isinstance(event, EndpointRetracted):
            assert proposed
            proposed = False
        elif isinstance(event, Endpoint):
            in_turn = proposed = False


def test_a_pause_without_audio_ends_the_turn_and_the_stream_goes_on(recognizer: Recognizer) -> None:
    from fake_model import speech

    stream = recognizer.stream()
    events = stream.accept(speech(1.5)) + stream.pause()
    assert isinstance(events[-1], Endpoint) and events[-1].time == pytest.approx(1.5)
    # nothing is said twice, and nothing costs anything meanwhile
    assert stream.pause() == [] and stream._state is None
    first = of(events, Final)
    alone = recognizer.stream()
    again = alone.accept(speech(1.5)) + list(alone.finish().events)
    assert [f.text for f in first] == [f.text for f in of(again, Final)]
    # what comes next is recognised as from the start, and its times go on
    more = stream.accept(speech(1.2, 1)) + list(stream.finish().events)
    fresh = recognizer.stream()
    expected = fresh.accept(speech(1.2, 1)) + list(fresh.finish().events)
    for a, b in zip(of(more, Final), of(expected, Final), strict=True):
        assert a.text == b.text and len(a.words) == len(b.words)
        for v, w in zip(a.words, b.words, strict=True):
            assert (v.end, v.emitted) == pytest.approx((w.end + 1.5, w.emitted + 1.5))
    assert not of(more, Endpoint) and stream.finish().duration == pytest.approx(2.7)
    assert stream.finish().text == " ".join(f.text for f in [*first, *of(more, Final)])


def test_the_silence_can_be_changed_while_the_stream_runs(recognizer: Recognizer) -> None:
    stream = recognizer.stream(endpoint_silence=None)
    audio = talk_with_pauses()
    assert not of(stream.accept(audio), Endpoint)
    stream.endpoint_silence = 0.4
    assert stream.endpoint_silence == 0.4 and of(stream.accept(audio), Endpoint)
    with pytest.raises(UserError, match="endpoint_silence"):
        stream.endpoint_silence = -1
