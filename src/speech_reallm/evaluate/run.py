"""True streaming: audio goes through the public recogniser in 240 ms feeds, as from a microphone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..audio import SAMPLE_RATE
from ..events import Event, Final, Partial
from ..punctuation import is_spoken
from .latency import ShownWord, emission_delays, live_clock
from .manifest import Row
from .times import WordTimes
from .wer import EditAlignment, Normalizer, edit_alignment, make_normalizer

FEED_MS = 240

Clock = Callable[[], float]

# what computing time is measured with; processor time: for one thread on a machine that does other things too
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, slots=True)
class Streamed:
    """One utterance after recognition.

    `compute` is how many seconds each feed took; `finalize` those from the end of the audio to the final
    text; `cpu` the processor time of it all. `shown` holds the words with their time on a live speaker's
    clock, `late` how many of them came only after the end of the audio.
    """

    text: str
    shown: tuple[ShownWord, ...]
    late: int
    duration: float
    compute: tuple[float, ...]
    finalize: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance with its score. `delays` are in ms; None where no word times are known."""

    row: Row
    reference: str
    hypothesis: str
    alignment: EditAlignment
    streamed: Streamed
    delays: tuple[float, ...] | None


class Screen:
    """What a user sees of a stream: in which call the last letter of each word came."""

    def __init__(self) -> None:
        self.words: list[tuple[str, int]] = []
        self._text = ""
        self._calls: list[int] = []

    def take(self, events: Iterable[Event], call: int) -> None:
        """Show events that call number `call` returned."""
        for event in events:
            if isinstance(event, Partial):
                self._text += event.text
                self._calls += [call] * len(event.text)
            elif isinstance(event, Final):
                for match in re.finditer(r"\S+", self._text):
                    # nobody waits for the punctuation after a word
                    places = range(match.start(), match.end())
                    last = max((i for i in places if is_spoken(self._text[i])), default=places[-1])
                    self.words.append((match[0], self._calls[last]))
                self._text, self._calls = "", []


def stream_utterance(
    recognizer: Any, audio: np.ndarray, clock: Clock = time.perf_counter, recording: bool = False
) -> Streamed:
    """Recognise `audio` (float32 [N], 16 kHz mono) through a stream of `recognizer`, live or as a recording."""
    feed = SAMPLE_RATE * FEED_MS // 1000
    duration = len(audio) / SAMPLE_RATE
    screen = Screen()
    fed: list[float] = []
    compute: list[float] = []
    cpu = time.process_time()
    stream = recognizer.stream(sample_rate=SAMPLE_RATE, **({"recording": True} if recording else {}))
    for start in range(0, len(audio), feed):
        part = audio[start : start + feed]
        before = clock()
        events = list(stream.accept(part))
        compute.append(clock() - before)
        screen.take(events, len(fed))
        fed.append((start + len(part)) / SAMPLE_RATE)
    before = clock()
    transcript = stream.finish()
    finalize = clock() - before
    cpu = time.process_time() - cpu

    # the zeros that flush the stream take a live listener no time
    screen.take(transcript.events, len(fed))
    done = live_clock([*fed, duration], [*compute, finalize])
    shown = tuple(ShownWord(word, done[call]) for word, call in screen.words)
    late = sum(call == len(fed) for _, call in screen.words)
    return Streamed(transcript.text, shown, late, duration, tuple(compute), finalize, cpu)


def score(
    row: Row, audio: np.ndarray, streamed: Streamed, normalize: Normalizer, times: WordTimes
) -> Utterance:
    """Compare what was recognised with what was spoken."""
    reference, hypothesis = normalize(row.text), normalize(streamed.text)
    # whatever the rates are counted with: words keep their times only under a normaliser of single words
    by_word = make_normalizer("librispeech")
    spoken = times.find(row, audio, by_word(row.text))
    delays = None if spoken is None else tuple(emission_delays(spoken, streamed.shown, by_word))
    return Utterance(
        row, reference, hypothesis, edit_alignment(reference.split(), hypothesis.split()), streamed, delays
    )


def evaluate(
    recognizer: Any,
    rows: Sequence[Row],
    normalize: Normalizer,
    times: WordTimes,
    load: Callable[[Row], np.ndarray] | None = None,
    clock: Clock = time.perf_counter,
    recordings: bool = False,
) -> Iterator[Utterance]:
    """Recognise and score rows, one after the other. Raises UserError for audio that cannot be read.

    `load` returns the audio of a row (float32 [N], 16 kHz mono). recordings: latency is of no concern.
    """
    load = load or load_row
    # the first run of a session allocates and optimises: not part of anybody's speech
    stream_utterance(recognizer, np.zeros(SAMPLE_RATE, np.float32), recording=recordings)
    for row in rows:
        audio = load(row)
        yield score(row, audio, stream_utterance(recognizer, audio, clock, recordings), normalize, times)


def load_row(row: Row) -> np.ndarray:
    """The audio of a row: float32 [N], 16 kHz mono."""
    from ..audio import read_audio

    return read_audio(row.audio)
