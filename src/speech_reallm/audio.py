"""Audio in: files block by block, PCM in every usual shape, resampling to 16 kHz.

Inside the package audio is float32, mono, 16 kHz, in [-1, 1].
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile
import soxr

from .errors import UserError

SAMPLE_RATE = 16000
MIN_RATE, MAX_RATE = 8000, 192000
# beyond this the samples are not in [-1, 1] with some overshoot: they are integers in a float array
MAX_AMPLITUDE = 32.0


class UnknownFormat(UserError):
    """A file that libsndfile does not know; PyAV may."""


class AudioWarning(UserWarning):
    """Something is wrong with a file, but what could be read of it is used."""


def check_rate(rate: int, what: str = "the stream") -> int:
    """Return `rate` if it is 8000 to 192000 Hz; raise UserError otherwise."""
    if isinstance(rate, bool) or int(rate) != rate or not MIN_RATE <= rate <= MAX_RATE:
        raise UserError(f"{what}: a sample rate of {rate} Hz is not within {MIN_RATE} to {MAX_RATE}")
    return int(rate)


def check_samples(samples: np.ndarray, what: str) -> None:
    """Raise UserError for NaN, infinity, or amplitudes that show another scale."""
    if not samples.size:
        return
    # min and max carry NaN along, so that two passes find all of it
    low, high = float(samples.min()), float(samples.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{what}: NaN or infinite samples; repair or convert the audio first")
    if max(-low, high) > MAX_AMPLITUDE:
        raise UserError(f"{what}: float samples must lie in [-1, 1], found {max(-low, high):.4g}; scale them")


def to_mono(pcm: np.ndarray | bytes | bytearray | memoryview) -> np.ndarray:
    """Float32 mono samples [n] from what callers hand in.

    pcm: float in [-1, 1], int16 or int32, of shape [n] or [n, channels] (averaged); bytes are int16, little
    endian, mono. Raises UserError for other types and shapes, NaN and infinity.
    """
    if isinstance(pcm, (bytes, bytearray, memoryview)):
        data = bytes(pcm)
        if len(data) % 2:
            raise UserError("PCM bytes: an odd number of them is not 16-bit audio")
        pcm = np.frombuffer(data, dtype="<i2")
    pcm = np.asarray(pcm)
    if pcm.ndim not in (1, 2) or (pcm.ndim == 2 and pcm.shape[1] == 0):
        raise UserError(f"PCM must have the shape [n] or [n, channels], not {list(pcm.shape)}")
    if pcm.dtype.kind == "f":
        check_samples(pcm, "PCM")
        scale = None
    elif pcm.dtype.kind == "i" and pcm.dtype.itemsize in (2, 4):
        scale = np.float32(1.0 / (1 << (8 * pcm.dtype.itemsize - 1)))
    else:
        raise UserError(f"PCM must be float32, int16 or bytes of int16, not {pcm.dtype}")
    mono = pcm.astype(np.float32) if pcm.ndim == 1 else _downmix(pcm)
    return mono if scale is None else mono * scale


def _downmix(samples: np.ndarray) -> np.ndarray:
    if samples.shape[1] == 1:
        return samples[:, 0].astype(np.float32)
    mono: np.ndarray = samples.mean(axis=1, dtype=np.float32)
    return mono


class Resampler:
    """Streaming resampling of mono float32 to 16 kHz; how the input is cut makes no difference."""

    def __init__(self, rate: int) -> None:
        self.rate = check_rate(rate)
        self._stream = None
        if rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def push(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """samples [n] float32 -> [m] float32 at 16 kHz; `last` brings what the filter still holds."""
        if self._stream is None:
            return samples
        resampled: np.ndarray = self._stream.resample_chunk(samples, last=last)
        return resampled


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """soundfile seeks to where it is after every read; in MP3 that upsets the decoder and is audible."""

    def seekable(self) -> bool:
        return False


class AudioFile:
    """An audio file, read block by block: memory does not grow with its length.

    Attributes: `rate` (Hz), `channels`, `duration` (seconds; an estimate, if the file is damaged or
    compressed, until all of it has been read).
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file. Raises UserError if it is missing, empty, no audio, or of an odd sample rate."""
        self.path = Path(path)
        try:
            if self.path.is_dir():
                raise UserError(f"{path} is a folder; name audio files")
            if not self.path.exists():
                raise UserError(f"{path}: no such file")
            if self.path.is_file() and self.path.stat().st_size == 0:
                raise UserError(f"{path} is empty")
            with self.path.open("rb"):
                pass
        except OSError as err:
            raise UserError(f"cannot read {path}: {err.strerror}") from None
        try:
            # ".raw" would make soundfile ask for a format; there is none to be found in such a file
            if self.path.suffix.lower() == ".raw":
                raise UserError(f"{path} is raw samples; convert it to WAV first")
            # bytes: a name need not be UTF-8 on Unix; on Windows it is never anything else
            self._file = _Sequential(str(self.path) if os.name == "nt" else os.fsencode(self.path))
        except (soundfile.LibsndfileError, TypeError, ValueError):
            raise UnknownFormat(
                f"{path} is not audio that can be read (WAV, FLAC, MP3, Ogg, Opus, ...); convert it first"
            ) from None
        self.rate = self._file.samplerate
        self.channels = self._file.channels
        try:
            check_rate(self.rate, str(path))
        except UserError:
            self.close()
            raise
        # a cut Ogg file reports no length at all, so that zero is no reason to give up yet
        self._promised = max(0, self._file.frames)
        self.duration = self._promised / self.rate
        self._warn_of_cut()

    def _warn_of_cut(self) -> None:
        """A WAV header may promise more than is there; streamed files (0x7fff...) promise nothing."""
        log = self._file.extra_info
        match = re.search(r"^\s*data : (\d+) \(should be (\d+)\)", log, flags=re.MULTILINE)
        if match and int(match[2]) < int(match[1]) < 0x7FFFF000:
            self._warn("is cut short: its header promises more; using what is there")

    def _warn(self, message: str) -> None:
        warnings.warn(f"{self.path} {message}", AudioWarning, stacklevel=3)

    def blocks(self, seconds: float = 0.25) -> Iterator[np.ndarray]:
        """Mono float32 blocks [n <= seconds * rate] at the file's own rate.

        Raises UserError for NaN or infinite samples and for a file with none at all. A file that breaks
        off is read as far as it goes, with an AudioWarning.
        """
        buffer = np.empty((max(1, int(seconds * self.rate)), self.channels), dtype=np.float32)
        total = 0
        count = 1
        while count:
            try:
                # read() would trust the length in the header, which a cut file gets wrong
                count = self._file.buffer_read_into(buffer, dtype="float32")
            except (soundfile.LibsndfileError, RuntimeError):
                if not total:
                    raise UserError(f"{self.path} is damaged: nothing of it can be decoded") from None
                self._warn(f"is damaged after {total / self.rate:.1f} s; using what comes before")
                break
            if count:
                check_samples(buffer[:count], f"{self.path} at {total / self.rate:.1f} s")
                total += count
                yield _downmix(buffer[:count])
        else:
            # compressed files only estimate their length, hence the margin
            if 0 < total < 0.9 * self._promised:
                self._warn(f"is cut short after {total / self.rate:.1f} s; using what is there")
        if not total:
            raise UserError(f"{self.path} holds no audio")
        self.duration = total / self.rate

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_audio(path: str | Path) -> np.ndarray:
    """The whole file as float32 [n], mono, 16 kHz. Raises UserError as AudioFile does."""
    with AudioFile(path) as source:
        resampler = Resampler(source.rate)
        parts = [resampler.push(block) for block in source.blocks()]
    parts.append(resampler.push(np.zeros(0, np.float32), last=True))
    return np.concatenate(parts)
