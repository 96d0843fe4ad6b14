"""What `transcribe` takes, and events in asyncio: the same words whatever the audio comes as."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_model import speech

from speech_reallm import AudioSource, Final, Recognizer, StreamOptions, UserError

RATE = 16000


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.round(speech(1.5) * 32767).astype(np.int16)


@pytest.fixture
def path(tmp_path: Path, samples: np.ndarray) -> Path:
    soundfile.write(tmp_path / "talk.wav", samples, RATE)
    return tmp_path / "talk.wav"


class Tone:
    """An AudioSource that is nobody's subclass."""

    rate = RATE
    closed = False

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = samples.astype(np.float32) / 32768

    def blocks(self, seconds: float) -> Iterator[np.ndarray]:
        yield from np.array_split(self.samples, 7)

    def close(self) -> None:
        self.closed = True


def test_the_same_words_whatever_it_comes_as(recognizer: Recognizer, path: Path, samples: np.ndarray) -> None:
    expected = recognizer.transcribe(path)
    assert expected.words and expected.file == str(path)
    assert recognizer.transcribe(str(path)) == expected, "but for the speed, which differs"
    tone = Tone(samples)
    assert isinstance(tone, AudioSource)
    with path.open("rb") as file:
        named = recognizer.transcribe(file)
        assert not file.closed and named.file == str(path)
    others = [
        named,
        recognizer.transcribe(path.read_bytes()),
        recognizer.transcribe(io.BytesIO(path.read_bytes())),
        recognizer.transcribe(samples, sample_rate=RATE),
        recognizer.transcribe(soundfile.read(path, dtype="float32")),
        recognizer.transcribe(np.stack([samples, samples], axis=1), sample_rate=RATE),
        recognizer.transcribe(samples.tobytes(), sample_rate=RATE),
        recognizer.transcribe(tone),
    ]
    assert tone.closed
    for transcript in others:
        assert transcript.words == expected.words and transcript.duration == expected.duration


def test_what_is_no_audio(recognizer: Recognizer, samples: np.ndarray) -> None:
    for audio, options, words in (
        (samples, {}, "sample_rate"),
        (samples, {"sample_rate": 10}, "sample rate of 10 Hz"),
        (b"no audio", {}, "not audio|neither audio"),
        (12, {}, "not int"),
        (np.zeros((2, 2, 2)), {"sample_rate": RATE}, "shape"),
        (samples, {"sample_rate": RATE, "delay": 77}, "delay"),
        (samples, {"sample_rate": RATE, "endpoint_silence": 0}, "endpoint_silence"),
    ):
        with pytest.raises(UserError, match=words):
            recognizer.transcribe(audio, **options)


def test_options_are_the_same_by_themselves_and_together(recognizer: Recognizer) -> None:
    options = StreamOptions(delay=0, endpoint_silence=0.5, history=7)
    stream = recognizer.stream(48000, options=options)
    assert (stream.delay, stream.endpoint_silence, stream.sample_rate) == (0, 0.5, 48000)
    stream = recognizer.stream(options=options, delay=1)
    assert (stream.delay, stream.endpoint_silence) == (1, 0.5)
    with pytest.raises(TypeError):
        recognizer.stream(latency=1)
    for wrong in ({"max_segment": 0}, {"history": -1}, {"endpoint_silence": -1}, {"numbers": "roman"}):
        with pytest.raises(UserError):
            StreamOptions(**wrong)


def test_events_in_asyncio(recognizer: Recognizer, samples: np.ndarray) -> None:
    expected = recognizer.transcribe(samples, sample_rate=RATE)
    packets = np.array_split(samples, 11)
    threads: set[str] = set()

    def waiting() -> Iterator[np.ndarray]:
        for packet in packets:
            threads.add(threading.current_thread().name)
            yield packet

    async def arriving() -> AsyncIterator[np.ndarray]:
        for packet in packets:
            await asyncio.sleep(0)
            yield packet

    async def run(audio: object) -> list[Final]:
        return [e async for e in recognizer.events(audio, RATE) if isinstance(e, Final)]

    async def both() -> list[list[Final]]:
        return await asyncio.gather(run(waiting()), run(arriving()))

    for finals in asyncio.run(both()):
        assert tuple(finals) == expected.segments
    assert threading.main_thread().name not in threads, "the event loop does not wait for audio"


def test_threads_share_a_recogniser_and_recognisers_a_process(
    recognizer: Recognizer, model_folder: Path, samples: np.ndarray
) -> None:
    expected = recognizer.transcribe(samples, sample_rate=RATE)
    several = [recognizer, recognizer, *(Recognizer.load(model_folder) for _ in range(4))]
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda one=one: found.append(one.transcribe(samples, sample_rate=RATE)))
        for one in several
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == [expected] * len(several)
