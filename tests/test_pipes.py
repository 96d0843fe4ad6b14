"""Sound from a pipe: every WAV that programs write, raw samples, and nothing that a pipe can hold does harm."""

from __future__ import annotations

import io
import os
import struct

import numpy as np
import pytest
import soundfile
from fake_model import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm import UserError
from speech_reallm.pipes import MAX_HEADER, Pipe


class Trickle(io.RawIOBase):
    """A pipe whose writer sends `sizes` bytes at a time; it cannot be sought in."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data, self._sizes = data, sizes

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        size = max(1, self._sizes[len(self._data) % len(self._sizes)])
        part, self._data = self._data[: min(count, size)], self._data[min(count, size) :]
        return part


def wav(samples: np.ndarray, rate: int = 16000, subtype: str = "PCM_16", format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def read(data: bytes, rate: int | None = None, sizes: list[int] | None = None) -> tuple[int, np.ndarray]:
    pipe = Pipe(Trickle(data, sizes or [1 << 20]), rate)
    blocks = list(pipe.blocks(0.05))
    assert all(b.dtype == np.float32 and 0 < len(b) <= 0.05 * pipe.rate for b in blocks)
    return pipe.rate, np.concatenate(blocks)


@pytest.mark.parametrize(
    ("subtype", "error"),
    [
        ("PCM_U8", 1e-2),
        ("PCM_16", 1e-4),
        ("PCM_24", 1e-6),
        ("PCM_32", 1e-6),
        ("FLOAT", 1e-6),
        ("DOUBLE", 1e-6),
    ],
)
@pytest.mark.parametrize("format", ["WAV", "WAVEX"])
def test_every_wav(subtype: str, error: float, format: str) -> None:
    audio = speech(0.3, rate=44100)
    stereo = np.stack([audio, audio * 0], axis=1)
    rate, samples = read(wav(stereo, 44100, subtype, format), sizes=[1, 7, 100, 5000])
    assert rate == 44100
    np.testing.assert_allclose(samples, audio / 2, atol=error)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=5))
def test_how_it_arrives_makes_no_difference(sizes: list[int]) -> None:
    audio = speech(0.2)
    np.testing.assert_allclose(read(wav(audio), sizes=sizes)[1], audio, atol=1e-4)
    raw = (audio * 32767).astype("<i2").tobytes()
    rate, samples = read(raw, 8000, sizes)
    assert rate == 8000
    np.testing.assert_allclose(samples, audio, atol=1e-4)


@pytest.mark.parametrize("length", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_writer_that_does_not_know_the_length(length: int) -> None:
    data = bytearray(wav(speech(0.2)))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", length)
    assert len(read(bytes(data))[1]) == 3200


def test_chunks_around_the_sound_are_skipped() -> None:
    data = wav(speech(0.2))
    at = data.index(b"data")
    extra = b"LIST" + struct.pack("<I", 5) + b"12345\0"
    assert len(read(data[:at] + extra + data[at:] + extra)[1]) == 3200


def test_a_writer_that_is_stopped() -> None:
    assert len(read(wav(speech(0.2))[:-1001])[1]) == 3200 - 501
    assert len(read(b"\0" * 1001, 16000)[1]) == 500


def test_what_is_there_is_not_held_back() -> None:
    """Words of a live pipe come as they are said, not when a block is full."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file:
        os.write(writer, bytes(640))
        blocks = Pipe(file, 16000).blocks(10)
        assert len(next(blocks)) == 320
        os.close(writer)
        assert list(blocks) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"ID3 this is an mp3", "not WAV; for raw"),
        (wav(speech(0.1))[:30], "breaks off"),
        (wav(np.zeros(0)), "no audio"),
        (wav(speech(0.1), 4000), "sample rate"),
        (wav(speech(0.1), subtype="ULAW"), "send 16-bit PCM"),
        (b"RIFF\0\0\0\0WAVEdata\x10\0\0\0" + bytes(16), "does not say"),
        (b"RIFF\0\0\0\0WAVELIST" + struct.pack("<I", MAX_HEADER + 2), "too long"),
        (wav(np.array([0.0, np.nan]), subtype="FLOAT"), "NaN"),
    ],
)
def test_unusable_pipes_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(data)
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_no_bytes_do_harm(noise: bytes, keep: int) -> None:
    for data in (noise, wav(speech(0.01))[:keep] + noise):
        try:
            rate, samples = read(data)
        except UserError:
            continue
        assert 8000 <= rate <= 192000 and np.isfinite(samples).all()
