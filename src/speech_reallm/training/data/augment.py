"""Augmentation of training audio: speed, volume, a random equaliser, noise, reverberation, compression.

Everything random comes from a generator that the caller seeds by (seed, epoch, place in the plan), so that a resumed
run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile
from lhotse.cut import Cut
from scipy.fft import next_fast_len
from scipy.signal import fftconvolve

from ...audio import SAMPLE_RATE
from ..config import AugmentConfig
from .manifests import load_audio, load_manifest


class Augmenter:
    """Applies an AugmentConfig."""

    def __init__(self, config: AugmentConfig):
        self.config = config
        self.noises = _Sounds(config.noise)
        self.rooms = _Sounds(config.reverb)

    def speed(self, cut: Cut, rng: np.random.Generator) -> Cut:
        """The cut at a speed drawn from the configured ones; alignments follow."""
        if not self.config.speeds:
            return cut
        factor = float(rng.choice(self.config.speeds))
        return cut if factor == 1.0 else cut.perturb_speed(factor)

    def audio(self, audio: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """float32 [N] -> the same augmented, and with its volume alone changed; both float32 [N] within [-1, 1]."""
        config = self.config
        clean = audio
        if rng.random() < config.equaliser_prob:
            audio = equalised(audio, config.equaliser_db, rng)
        if rng.random() < config.band_stop_prob:
            audio = without_band(audio, rng)
        if rng.random() < config.hum_prob:
            audio = audio + rumble(audio, rng)
        if self.rooms and rng.random() < config.reverb_prob:
            audio = reverberate(audio, self.rooms.draw(rng))
        if self.noises and rng.random() < config.noise_prob:
            noise = self.noises.draw(rng)
            audio = add_noise(audio, noise, rng.uniform(*config.noise_snr_db), rng)
        if rng.random() < config.codec_prob:
            audio = compressed(audio, rng.uniform(*MP3_LEVELS))
        gain = 10 ** (rng.uniform(-config.volume_db, config.volume_db) / 20) if config.volume_db else 1.0
        return _limited(audio * gain), _limited(clean * gain)


def _limited(audio: np.ndarray) -> np.ndarray:
    return np.clip(audio, -1, 1).astype(np.float32)


class _Sounds:
    """The recordings of a manifest, each read once."""

    def __init__(self, manifest: str | None):
        self.cuts = list(load_manifest(manifest, require_text=False)) if manifest else []
        self.loaded: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.cuts)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        index = int(rng.integers(len(self.cuts)))
        if index not in self.loaded:
            self.loaded[index] = load_audio(self.cuts[index])
        return self.loaded[index]


def equalised(audio: np.ndarray, spread_db: float, rng: np.random.Generator) -> np.ndarray:
    """The same through a smooth random filter: its gain in decibels is a normal walk over an octave or so a step."""
    # bounds in Hz of the stretches whose gain is drawn, evenly on a logarithmic scale
    knots = np.geomspace(80, 8000, 8)
    gain = np.cumsum(rng.normal(0, spread_db / 2, len(knots)))
    size = len(audio)
    spectrum = np.fft.rfft(audio, next_fast_len(size, real=True))
    hertz = np.linspace(0, 8000, len(spectrum))
    decibels = np.interp(np.log(hertz.clip(80)), np.log(knots), gain - gain.mean())
    result = np.fft.irfft(spectrum * 10 ** (decibels / 20), next_fast_len(size, real=True))[:size]
    return result * (np.sqrt(np.mean(audio**2)) / max(float(np.sqrt(np.mean(result**2))), 1e-8))


# bounds of a band that is taken out: its middle in Hz, its width in octaves, and by how many decibels
BAND_HERTZ, BAND_OCTAVES, BAND_DB = (150.0, 6000.0), (0.2, 1.0), (15.0, 40.0)


def without_band(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 [N] -> [N], a random band of frequencies weakened: SpecAugment's frequency mask, for waveforms."""
    middle = np.exp(rng.uniform(*np.log(BAND_HERTZ)))
    width, depth = rng.uniform(*BAND_OCTAVES), rng.uniform(*BAND_DB)
    size = next_fast_len(len(audio), real=True)
    spectrum = np.fft.rfft(audio, size)
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    distance = np.abs(np.log2(hertz.clip(1) / middle))
    # edges of a tenth of an octave, so that the filter does not ring for long
    inside = np.clip((width / 2 - distance) / 0.1, 0, 1)
    return np.fft.irfft(spectrum * 10 ** (-depth * inside / 20), size)[: len(audio)]


def rumble(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Low-frequency sound [N] to add to audio [N]: mains hum with overtones, or noise below 80 Hz (wind, traffic).

    Its level is from 15 dB below that of the audio to 18 dB above.
    """
    time = np.arange(len(audio)) / SAMPLE_RATE
    if rng.random() < 0.5:
        base = float(rng.choice((50.0, 60.0)))
        low = sum(
            10 ** (-rng.uniform(6, 30) * i / 20) * np.sin(2 * np.pi * (base * (i + 1) * time + rng.random()))
            for i in range(3)
        )
    else:
        size = next_fast_len(len(audio), real=True)
        hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
        spectrum = np.fft.rfft(rng.normal(size=len(audio)), size) * ((hertz > 5) & (hertz < 80))
        low = np.fft.irfft(spectrum, size)[: len(audio)]
    wanted = np.sqrt(np.mean(audio**2)) * 10 ** (rng.uniform(-15, 18) / 20)
    return low * (wanted / max(float(np.sqrt(np.mean(low**2))), 1e-8))


# LAME's compression as libsndfile counts it: 86 to 43 kbit/s; beyond, what comes back is delayed
MP3_LEVELS = (0.5, 0.8)


def compressed(audio: np.ndarray, level: float) -> np.ndarray:
    """float32 [N] -> [N], once encoded as MP3 and decoded."""
    loudest = max(float(np.abs(audio).max()), 1e-8)
    file = io.BytesIO()
    soundfile.write(
        file,
        audio * (0.9 / loudest),
        SAMPLE_RATE,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=level,
    )
    file.seek(0)
    result = soundfile.read(file, dtype="float32")[0][: len(audio)] * (loudest / 0.9)
    return np.pad(result, (0, len(audio) - len(result)))


def reverberate(audio: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Convolve with a room's impulse response; level and timing of the direct sound are kept."""
    start = int(np.abs(room).argmax())
    wet = fftconvolve(audio, room[start : start + SAMPLE_RATE])[: len(audio)]
    return wet * (np.sqrt(np.mean(audio**2)) / max(float(np.sqrt(np.mean(wet**2))), 1e-8))


def add_noise(audio: np.ndarray, noise: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Add a random stretch of `noise`, repeated if short, at `snr_db`."""
    start = int(rng.integers(len(noise)))
    stretch = np.resize(np.roll(noise, -start)[: len(audio)], len(audio))
    power = float(np.mean(audio**2)) / max(float(np.mean(stretch**2)), 1e-10)
    return audio + stretch * np.sqrt(power / 10 ** (snr_db / 10))
