"""What `Recognizer.transcribe` takes: files, bytes, arrays, and whatever else gives blocks of samples."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

import numpy as np

from .audio import check_rate, to_channels
from .channels import Mixer
from .errors import UserError
from .media import open_audio

Recording = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray | tuple[np.ndarray, int]
)


@runtime_checkable
class AudioSource(Protocol):
    """Sound that is read block by block. `rate`: Hz."""

    rate: int

    def blocks(self, seconds: float) -> Iterator[np.ndarray]:
        """Mono float32 blocks [n <= seconds * rate] up to the end."""
        ...

    def close(self) -> None:
        """No more is read."""
        ...


class ArraySource:
    """Samples in memory."""

    def __init__(self, pcm: Any, rate: int, channel: str | int | None = None) -> None:
        """pcm: as `Stream.accept` takes it. channel: the one to take, None: all that have speech.

        Raises UserError for another shape or type, and for a rate or a channel that there is not.
        """
        self.rate = check_rate(rate, "the array")
        self._samples = to_channels(pcm)
        self._mixer = Mixer(self.rate, self._samples.shape[1], choice=channel, what="the array")
        self.duration = len(self._samples) / self.rate

    def blocks(self, seconds: float = 0.25) -> Iterator[np.ndarray]:
        """Mono float32 blocks [n <= seconds * rate]."""
        size = max(1, int(seconds * self.rate))
        for start in range(0, len(self._samples), size):
            yield self._mixer.push(self._samples[start : start + size])

    def close(self) -> None:
        """Nothing is open."""


def open_source(
    audio: AudioSource | Recording,
    sample_rate: int | None = None,
    *,
    channel: str | int | None = None,
    track: int | None = None,
) -> tuple[AudioSource, str | None]:
    """A source for what `Recognizer.transcribe` is given, and its name if it has one. Raises UserError."""
    options: dict[str, Any] = {"raw_rate": sample_rate, "channel": channel, "track": track}
    if isinstance(audio, (str, os.PathLike)):
        path = Path(os.fspath(audio))
        return open_audio(path, **options), str(path)
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return open_audio(io.BytesIO(bytes(audio)), **options), None
    if hasattr(audio, "read"):
        name = getattr(audio, "name", None)
        name = name if isinstance(name, str) else None
        return open_audio(cast("BinaryIO", audio), name=name, **options), name
    if isinstance(audio, AudioSource):
        return audio, getattr(audio, "name", None)
    if isinstance(audio, tuple) and len(audio) == 2 and isinstance(audio[0], np.ndarray):
        # as soundfile.read returns it
        audio, sample_rate = audio
    if isinstance(audio, np.ndarray):
        if sample_rate is None:
            raise UserError("an array of samples needs its rate: transcribe(samples, sample_rate=16000)")
        return ArraySource(audio, int(sample_rate), channel), None
    raise UserError(
        "audio must be a path, a binary file, bytes, an array with sample_rate, or an AudioSource, not "
        f"{type(audio).__name__}"
    )
