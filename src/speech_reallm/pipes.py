"""Sound from a pipe, as it comes: WAV, or raw 16-bit samples."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from .audio import check_rate, check_samples, to_mono
from .errors import UserError

# bytes of chunks before the sound that are skipped (pictures, names); more is no WAV that anyone writes
MAX_HEADER = 1 << 24
MAX_CHANNELS = 64
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


class Pipe:
    """Blocks of sound from a binary file that cannot be sought in; what `AudioFile` is for files.

    Attributes: `rate` (Hz), `channels`, `duration` (0: not known, until all has been read).
    """

    duration = 0.0

    def __init__(self, file: BinaryIO, rate: int | None = None, name: str = "standard input") -> None:
        """rate: the bytes are 16-bit samples, little endian, mono, at so many Hz; None: they are WAV.

        Waits for the header of a WAV. Raises UserError where there is none.
        """
        self._file, self._name = file, name
        # a pipe that nobody writes to must not hold up samples that are there
        self._read: Callable[[int], bytes] = getattr(file, "read1", file.read)
        self._left: float = float("inf")
        self.channels, self._decode, self._width = 1, to_mono, 2
        if rate is None:
            rate = self._header()
        self.rate = check_rate(rate, name)

    def blocks(self, seconds: float = 0.25) -> Iterator[np.ndarray]:
        """Mono float32 blocks [n <= seconds * rate], shorter where no more has come yet.

        Raises UserError if nothing comes at all.
        """
        frame = self._width * self.channels
        size = max(1, int(seconds * self.rate)) * frame
        total, rest = 0, b""
        while self._left > 0:
            data = self._read(int(min(size - len(rest), self._left)))
            if not data:
                break
            self._left -= len(data)
            data = rest + data
            whole = len(data) - len(data) % frame
            data, rest = data[:whole], data[whole:]
            if data:
                samples = self._decode(data)
                total += len(samples)
                yield samples
        # half a sample at the end is what a writer that was stopped leaves behind
        if not total:
            raise UserError(f"{self._name} holds no audio")
        self.duration = total / self.rate

    def close(self) -> None:
        """The file belongs to the caller; nothing to do."""

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _header(self) -> int:
        """Read up to the sound. Returns the sample rate, Hz."""
        start = self._read(4)
        if not start:
            raise UserError(f"{self._name} is empty")
        start += self._exactly(4 - len(start))
        if start not in (b"RIFF", b"RF64") or self._exactly(8)[4:] != b"WAVE":
            raise UserError(
                f"{self._name} is not WAV; for raw 16-bit samples add --rate HZ, other sound save to a file first"
            )
        known, skipped = None, 0
        while True:
            name, size = struct.unpack("<4sI", self._exactly(8))
            if name == b"data":
                break
            # chunks are padded to even lengths
            size += size % 2
            skipped += size
            if skipped > MAX_HEADER:
                raise self._damaged("its header is too long")
            body = self._exactly(size)
            if name == b"fmt ":
                known = self._format(body)
        if known is None:
            raise self._damaged("it does not say what its samples are")
        # writers that do not know the length yet write 0 or the largest number
        self._left = size if 0 < size < 0x7FFFF000 else float("inf")
        return known

    def _format(self, body: bytes) -> int:
        if len(body) < 16:
            raise self._damaged("its header is too short")
        kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
        if kind == _EXTENSIBLE and len(body) >= 26:
            (kind,) = struct.unpack("<H", body[24:26])
        if not 1 <= channels <= MAX_CHANNELS:
            raise self._damaged(f"{channels} channels")
        if (kind, bits) not in _SAMPLES:
            raise UserError(
                f"{self._name}: WAV of type {kind} with {bits} bits is not read from a pipe; send 16-bit PCM"
            )
        decode = _SAMPLES[kind, bits]
        self.channels, self._width = channels, bits // 8

        def mono(data: bytes) -> np.ndarray:
            samples = decode(data).reshape(-1, channels)
            check_samples(samples, self._name)
            return samples.mean(axis=1, dtype=np.float32)

        self._decode = mono
        return rate

    def _exactly(self, count: int) -> bytes:
        buffer = io.BytesIO()
        while (missing := count - buffer.tell()) > 0:
            data = self._read(min(missing, 1 << 16))
            if not data:
                raise self._damaged("its header breaks off")
            buffer.write(data)
        return buffer.getvalue()

    def _damaged(self, why: str) -> UserError:
        return UserError(f"{self._name} is not WAV that can be used: {why}")


def _pcm24(data: bytes) -> np.ndarray:
    three = np.frombuffer(data, np.uint8).reshape(-1, 3)
    four = np.zeros((len(three), 4), np.uint8)
    four[:, 1:] = three
    return four.view("<i4")[:, 0].astype(np.float32) / (1 << 31)


# (type, bits) of WAV samples -> float32 in [-1, 1]
_SAMPLES: dict[tuple[int, int], Callable[[bytes], np.ndarray]] = {
    (_PCM, 8): lambda data: (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128,
    (_PCM, 16): lambda data: np.frombuffer(data, "<i2").astype(np.float32) / (1 << 15),
    (_PCM, 24): _pcm24,
    (_PCM, 32): lambda data: np.frombuffer(data, "<i4").astype(np.float32) / (1 << 31),
    (_FLOAT, 32): lambda data: np.frombuffer(data, "<f4").astype(np.float32),
    (_FLOAT, 64): lambda data: np.frombuffer(data, "<f8").astype(np.float32),
}
