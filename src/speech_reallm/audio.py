"""Samples: PCM in every usual shape, what is wrong with it, and resampling to 16 kHz.

Inside the package audio is float32, mono, 16 kHz, in [-1, 1]. Files and pipes are opened by `media`, channels are
brought down to one by `channels`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr

from .errors import UserError

SAMPLE_RATE = 16000
MIN_RATE, MAX_RATE = 8000, 192000
# more than any format of the field has; what is beyond is taken for an array that lies on its side
MAX_CHANNELS = 64
# beyond this the samples are not in [-1, 1] with some overshoot: they are integers in a float array, or damage
MAX_AMPLITUDE = 32.0


class AudioWarning(UserWarning):
    """Something is wrong with a file, but what could be read of it is used."""


class AudioNotice(AudioWarning):
    """Nothing is wrong with a file, but there was a choice: of a sound track or a channel."""

    # what the command line calls it
    label = "note"


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


def scrub(samples: np.ndarray, what: str) -> tuple[np.ndarray, int]:
    """Samples [n, channels] of a file, with zeros where one is NaN, infinite or absurdly large, and how many were.

    Raises UserError where more than one in a hundred is large: then the whole file has another scale.
    """
    low, high = (float(samples.min()), float(samples.max())) if samples.size else (0.0, 0.0)
    # a NaN makes these comparisons false
    if low >= -MAX_AMPLITUDE and high <= MAX_AMPLITUDE:
        return samples, 0
    finite = np.isfinite(samples)
    good = finite & (np.abs(np.where(finite, samples, 0)) <= MAX_AMPLITUDE)
    large = int(np.count_nonzero(finite & ~good))
    if large > max(1, samples.size // 100):
        raise UserError(
            f"{what}: float samples must lie in [-1, 1], found {np.abs(samples[finite]).max():.4g}; scale them"
        )
    return np.where(good, samples, 0).astype(samples.dtype), int(np.count_nonzero(~good.all(axis=1)))


def to_channels(pcm: np.ndarray | bytes | bytearray | memoryview) -> np.ndarray:
    """Float32 samples [n, channels] from what callers hand in.

    pcm: float in [-1, 1], int16 or int32, of shape [n] or [n, channels]; bytes are int16, little endian, mono.
    Raises UserError for other types and shapes ([channels, n] among them), NaN and infinity.
    """
    if isinstance(pcm, (bytes, bytearray, memoryview)):
        data = bytes(pcm)
        if len(data) % 2:
            raise UserError("PCM bytes: an odd number of them is not 16-bit audio")
        pcm = np.frombuffer(data, dtype="<i2")
    pcm = np.asarray(pcm)
    if pcm.ndim not in (1, 2) or (pcm.ndim == 2 and pcm.shape[1] == 0):
        raise UserError(f"PCM must have the shape [n] or [n, channels], not {list(pcm.shape)}")
    if pcm.ndim == 2 and _on_its_side(*pcm.shape):
        raise UserError(
            f"PCM must have the shape [n, channels]; {list(pcm.shape)} looks like [channels, n]: hand in pcm.T"
        )
    if pcm.dtype.kind == "f":
        check_samples(pcm, "PCM")
        scale = None
    elif pcm.dtype.kind == "i" and pcm.dtype.itemsize in (2, 4):
        scale = np.float32(1.0 / (1 << (8 * pcm.dtype.itemsize - 1)))
    else:
        raise UserError(f"PCM must be float32, int16 or bytes of int16, not {pcm.dtype}")
    samples = pcm.astype(np.float32).reshape(len(pcm), -1 if pcm.size else max(1, pcm.shape[-1]))
    if pcm.ndim == 1:
        samples = samples.reshape(-1, 1)
    return samples if scale is None else samples * scale


def _on_its_side(rows: int, columns: int) -> bool:
    """Is this [channels, n]? Blocks of more channels than samples are so rare that a short block decides nothing."""
    return columns > MAX_CHANNELS or (0 < rows <= 8 < columns)


class Resampler:
    """Streaming resampling of mono float32 to 16 kHz or `to`; how the input is cut makes no difference."""

    def __init__(self, rate: int, to: int = SAMPLE_RATE) -> None:
        self.rate = check_rate(rate)
        self._stream = None
        if rate != to:
            self._stream = soxr.ResampleStream(rate, to, 1, dtype="float32")

    def push(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """samples [n] float32 -> [m] float32; `last` brings what the filter still holds."""
        if self._stream is None:
            return samples
        resampled: np.ndarray = self._stream.resample_chunk(samples, last=last)
        return resampled


def read_audio(path: str | Path) -> np.ndarray:
    """The whole file as float32 [n], mono, 16 kHz. Raises UserError as `media.open_audio` does."""
    from .media import open_audio

    with open_audio(path) as source:
        resampler = Resampler(source.rate)
        parts = [resampler.push(block) for block in source.blocks()]
    parts.append(resampler.push(np.zeros(0, np.float32), last=True))
    return np.concatenate(parts)
