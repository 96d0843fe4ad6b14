"""A recogniser that says what it is told to, and shows each word when it is told to."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speech_reallm.events import Event, Final, Partial, Transcript, Word

RATE = 16000


def word(text: str, emitted: float) -> Word:
    """A word shown once so many seconds of audio have been fed."""
    return Word(text, 0.0, 0.0, 1.0, emitted)


class FakeClock:
    """Moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeStream:
    """Says the words of its recogniser, piece by piece, whatever the audio."""

    def __init__(self, recognizer: FakeRecognizer) -> None:
        self.recognizer = recognizer
        self.fed = 0
        self.said = 0

    def accept(self, pcm: np.ndarray) -> list[Event]:
        self.fed += len(pcm)
        self.recognizer.feeds.append(len(pcm))
        self.recognizer.clock.now += self.recognizer.cost
        return self._say(self.fed / RATE)

    def finish(self) -> Transcript:
        self.recognizer.clock.now += self.recognizer.finish_cost
        words = tuple(self.recognizer.words)
        text = " ".join(w.word for w in words)
        events = self._say(math.inf)
        if words:
            events.append(Final(text, words, 0.0, 1.0))
        return Transcript(text=text, words=words, segments=(), duration=0.0, rtf=0.0, events=tuple(events))

    def _say(self, now: float) -> list[Event]:
        """Words that are due; of the word after them all but the last letter comes with them."""
        words, events = self.recognizer.words, []
        while self.said < len(words) and words[self.said].emitted <= now + 1e-6:
            text = words[self.said].word if not self.said else words[self.said].word[-1]
            self.said += 1
            if self.said < len(words):
                text += " " + words[self.said].word[:-1]
            events.append(Partial(text, now))
        return events


class FakeRecognizer:
    """Hears `words`, whatever the audio; accept() takes `cost` seconds of `clock`, finish() `finish_cost`."""

    stream_type = FakeStream

    def __init__(
        self,
        words: Sequence[Word],
        clock: FakeClock | None = None,
        cost: float = 0.0,
        finish_cost: float = 0.0,
    ) -> None:
        self.words = list(words)
        self.clock = clock or FakeClock()
        self.cost = cost
        self.finish_cost = finish_cost
        self.feeds: list[int] = []
        self.delay = 1

    def stream(self, sample_rate: int) -> FakeStream:
        assert sample_rate == RATE
        return self.stream_type(self)


def write_manifest(folder: Path, rows: Sequence[dict[str, Any]], seconds: float = 1.0) -> Path:
    """A manifest of noise; a row that names no audio gets a file of its own."""
    rng = np.random.default_rng(0)
    lines = []
    for number, row in enumerate(rows):
        row = dict(row)
        if "audio" not in row:
            row["audio"] = f"{number}.wav"
            samples = 0.1 * rng.standard_normal(math.ceil(seconds * RATE))
            soundfile.write(folder / row["audio"], samples, RATE)
        row = {"id": f"u{number}", "text": "A B", "duration": seconds, "speaker": "s", **row}
        lines.append(json.dumps(row))
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
