"""Sound files for tests, made here: every container, whole, joined, cut, with a hole, with an unfinished header."""

from __future__ import annotations

import io
import struct
import warnings
from fractions import Fraction
from functools import lru_cache

import numpy as np
import soundfile

from speech_reallm.audio import AudioWarning
from speech_reallm.media import open_audio

RATE = 16000
# what libsndfile writes of the formats that have frames, by name
FRAMED = {"mp3": ("MP3", None), "flac": ("FLAC", None), "opus": ("OGG", "OPUS"), "vorbis": ("OGG", "VORBIS")}


def sweep(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Noise under a slow tremolo: every place of it is like no other, float32 [n] or [n, channels]."""
    n = int(seconds * RATE)
    rng = np.random.default_rng(n)
    sound = np.convolve(rng.standard_normal(n), np.ones(8) / 8, "same") * 0.2
    sound = (sound * (1 + 0.5 * np.sin(np.arange(n) * 2 * np.pi * 3 / RATE))).astype(np.float32)
    if rate != RATE:
        import soxr

        sound = soxr.resample(sound, RATE, rate).astype(np.float32)
    return sound if channels == 1 else np.repeat(sound[:, None], channels, axis=1)


def encoded(sound: np.ndarray, kind: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    """A file by libsndfile. kind: one of `FRAMED`, or libsndfile's name."""
    form, subtype = FRAMED.get(kind, (kind, subtype))
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", rate, 1 if sound.ndim == 1 else sound.shape[1], format=form, subtype=subtype
    ) as out:
        # all at once is too much for its Vorbis
        for start in range(0, len(sound), rate):
            out.write(sound[start : start + rate])
    return file.getvalue()


@lru_cache
def sweep_file(seconds: float, kind: str) -> bytes:
    """`sweep` in one of the formats of `FRAMED`; made once."""
    return encoded(sweep(seconds), kind)


def by_av(
    tracks: list[np.ndarray],
    form: str,
    codec: str,
    *,
    rate: int = 48000,
    at: float = 0.0,
    video: bool = False,
    dispositions: tuple[str, ...] = (),
    titles: tuple[str, ...] = (),
    options: dict[str, str] | None = None,
    skipped: range = range(0),
) -> bytes:
    """A file by PyAV; tracks are float32 [n] at `rate`. at: where they begin, seconds. skipped: packets left out."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=form, options=options or {}) as container:
        streams = []
        for index in range(len(tracks)):
            stream = container.add_stream(codec, rate=rate, layout="mono")
            if index < len(dispositions) and dispositions[index]:
                stream.disposition = getattr(type(stream.disposition), dispositions[index])
            if index < len(titles):
                stream.metadata["title"] = titles[index]
            streams.append(stream)
        if video:
            picture = container.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 32
            for number in range(10):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                frame.pts = number
                container.mux(picture.encode(frame))
            container.mux(picture.encode())
        size, number = rate // 50, 0
        for start in range(0, max(map(len, tracks)), size):
            for stream, sound in zip(streams, tracks, strict=True):
                part = np.ascontiguousarray(sound[start : start + size])
                if not len(part):
                    continue
                frame = av.AudioFrame.from_ndarray(part[None], format="fltp", layout="mono")
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = start + int(at * rate)
                for packet in stream.encode(frame):
                    number += 1
                    if number not in skipped:
                        container.mux(packet)
        for stream in streams:
            container.mux(stream.encode(None))
    return file.getvalue()


def wav(sound: np.ndarray, size: int | None = None, rate: int = RATE, riff: int | None = None) -> bytes:
    """16-bit WAV by hand. size, riff: what the header says, None for the truth."""
    data = (np.clip(sound, -1, 1) * 32767).round().astype("<i2").tobytes()
    channels = 1 if sound.ndim == 1 else sound.shape[1]
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    size = len(data) if size is None else size
    riff = 36 + size if riff is None else riff
    return (
        struct.pack("<4sI4s", b"RIFF", riff & 0xFFFFFFFF, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", size)
        + data
    )


class Trickle(io.RawIOBase):
    """A pipe whose writer sends `sizes` bytes at a time; it cannot be sought in."""

    def __init__(self, data: bytes, sizes: list[int] | None = None) -> None:
        self._data, self._sizes = data, sizes or [1 << 20]

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        size = max(1, self._sizes[len(self._data) % len(self._sizes)])
        if 0 <= count < size:
            size = count
        part, self._data = self._data[:size], self._data[size:]
        return part


def read(
    data: bytes, *, pipe: bool = False, seconds: float = 0.1, **options: object
) -> tuple[np.ndarray, int, list[str]]:
    """What `open_audio` makes of these bytes: float32 [n], its rate, and what was told."""
    file = Trickle(data) if pipe else io.BytesIO(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_audio(file, name="it", **options) as source:
            blocks = list(source.blocks(seconds))
            rate, told = source.rate, source.warnings
            assert abs(source.duration - sum(map(len, blocks)) / rate) < 1e-6
    assert all(block.dtype == np.float32 and 0 < len(block) <= seconds * rate for block in blocks)
    assert all(issubclass(w.category, AudioWarning) and str(w.message).startswith("it ") for w in caught)
    samples = np.concatenate(blocks)
    assert np.isfinite(samples).all()
    assert set(told) <= {str(w.message) for w in caught}
    return samples, rate, [str(w.message) for w in caught]


def alike(samples: np.ndarray, expected: np.ndarray, rate: int = RATE, slack: float = 0.0) -> bool:
    """Is it the same sound at the same times? slack: seconds that it may be early or late."""
    import soxr

    samples = samples if rate == RATE else soxr.resample(samples, rate, RATE).astype(np.float32)
    if abs(len(samples) - len(expected)) > 0.1 * RATE + slack * RATE:
        return False
    steps = int(slack * RATE)
    count = min(len(samples), len(expected))
    return any(
        np.corrcoef(samples[max(0, k) : count + min(0, k)], expected[max(0, -k) : count - max(0, k)])[0, 1]
        > 0.9
        for k in range(-steps, steps + 1)
    )
