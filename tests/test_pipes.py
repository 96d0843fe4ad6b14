"""Sound from a pipe, as it comes: every container, raw samples, and nothing is held back."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from fake_model import speech
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import FRAMED, RATE, Trickle, alike, by_av, encoded, read, sweep, wav

from speech_reallm import Recognizer, UserError
from speech_reallm.media import open_audio
from speech_reallm.readers.pcm import MAX_HEADER


def piped(data: bytes, sizes: list[int] | None = None, **options: object) -> tuple[int, np.ndarray]:
    with open_audio(Trickle(data, sizes), **options) as source:
        return source.rate, np.concatenate(list(source.blocks(0.05)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=5))
def test_how_it_arrives_makes_no_difference(sizes: list[int]) -> None:
    audio = speech(0.2)
    stereo = np.stack([audio, -audio], axis=1)
    for data in (
        encoded(stereo, "WAV", "PCM_24"),
        encoded(stereo, "AIFF", "PCM_16"),
        encoded(stereo, "CAF", "FLOAT"),
    ):
        np.testing.assert_array_equal(piped(data, sizes)[1], piped(data)[1])
    raw = (audio * 32767).astype("<i2").tobytes()
    rate, samples = piped(raw, sizes, raw_rate=8000)
    assert rate == 8000
    np.testing.assert_allclose(samples, audio, atol=1e-4)


@pytest.mark.parametrize("kind", list(FRAMED))
def test_compressed_sound(kind: str) -> None:
    """By PyAV, frame by frame, so that a pipe that never ends is recognised as it comes."""
    pytest.importorskip("av")
    data = encoded(sweep(2.0), kind)
    samples, rate, told = read(data + data, pipe=True)
    assert told == [] and alike(samples, np.concatenate([sweep(2.0)] * 2), rate)


@pytest.mark.parametrize(
    ("form", "codec"), [("matroska", "aac"), ("webm", "libopus"), ("adts", "aac"), ("mpegts", "aac")]
)
def test_other_containers(form: str, codec: str) -> None:
    pytest.importorskip("av")
    samples, rate, told = read(by_av([sweep(2.0, 48000)], form, codec), pipe=True)
    assert told == [] and alike(samples, sweep(2.0), rate, slack=0.05)


def test_without_pyav_compressed_sound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    for kind in FRAMED:
        with pytest.raises(UserError, match=r"--rate.*pip install"):
            read(encoded(sweep(0.5), kind), pipe=True)


def test_a_writer_that_is_stopped() -> None:
    samples, _, told = read(wav(speech(0.2))[:-1001], pipe=True)
    assert len(samples) == 3200 - 501 and len(told) == 1
    assert len(read(b"\0" * 1001, pipe=True, raw_rate=16000)[0]) == 500


def test_what_is_there_is_not_held_back() -> None:
    """Words of a live pipe come as they are spoken, not when a block is full."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file:
        # "R" may be the beginning of another file's header
        os.write(writer, b"\1R" * 319 + b"\1\1")
        blocks = open_audio(file, raw_rate=16000).blocks(10)
        assert len(next(blocks)) == 320
        os.close(writer)
        assert list(blocks) == []
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file:
        os.write(writer, wav(np.zeros(0), 0xFFFFFFFF) + bytes(640))
        blocks = open_audio(file).blocks(10)
        received = 0
        while received < 320:
            received += len(next(blocks))
        assert received == 320
        os.close(writer)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (wav(speech(0.1))[:30], "breaks off"),
        (wav(np.zeros(0)), "no audio"),
        (encoded(speech(0.1), "WAV", rate=4000), "sample rate"),
        (encoded(speech(0.1, rate=8000), "WAV", "IMA_ADPCM", 8000), "convert it to 16-bit PCM"),
        (b"RIFF\0\0\0\0WAVEdata\x10\0\0\0" + bytes(16), "does not say"),
        (b"RIFF\0\0\0\0WAVELIST" + struct.pack("<I", MAX_HEADER + 2), "too long"),
        (encoded(np.array([np.nan, np.nan]), "WAV", "FLOAT"), "NaN"),
    ],
)
def test_unusable_pipes_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(data, pipe=True)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe(tmp_path: Path, recognizer: Recognizer) -> None:
    data = wav(speech(1.5))
    (tmp_path / "a.wav").write_bytes(data)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(data))
    writer.start()
    transcript = recognizer.transcribe(fifo)
    writer.join()
    assert transcript.text == recognizer.transcribe(tmp_path / "a.wav").text != ""
    assert transcript.duration == pytest.approx(1.5) and RATE == 16000


def test_a_pipe_that_is_waited_for_does_not_count_as_work(recognizer: Recognizer) -> None:
    class Slow(Trickle):
        def read(self, count: int = -1) -> bytes:
            threading.Event().wait(0.3)
            return super().read(count)

    audio = wav(np.zeros(1600))
    assert recognizer.transcribe(Slow(audio, [1600])).rtf * 0.1 < 0.3
