"""Augmentation does what its numbers say."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tones import Corpus

from speech_reallm.errors import UserError
from speech_reallm.training.config import AugmentConfig
from speech_reallm.training.data.augment import (
    MP3_LEVELS,
    Augmenter,
    add_noise,
    compressed,
    equalised,
    reverberate,
    rumble,
    without_band,
)
from speech_reallm.training.data.manifests import load_audio, load_manifest
from speech_reallm.training.data.spec_augment import SpecAugment


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def noise_of(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5])
@pytest.mark.parametrize("samples", [500, 16000, 100_000])
def test_noise_is_at_the_ratio(snr: float, samples: int) -> None:
    audio = noise_of(16000, 1)
    noise = noise_of(samples, 2) * np.linspace(0.1, 1, samples)
    noisy = add_noise(audio, noise, snr, np.random.default_rng(3))
    assert len(noisy) == len(audio)
    assert 20 * np.log10(rms(audio) / rms(noisy - audio)) == pytest.approx(snr, abs=1e-3)


def test_silence_stays_silent_and_silent_noise_adds_nothing() -> None:
    silence = np.zeros(1000, np.float32)
    assert not add_noise(silence, noise_of(1000), 10.0, np.random.default_rng(0)).any()
    audio = noise_of(1000)
    assert np.allclose(add_noise(audio, silence, 10.0, np.random.default_rng(0)), audio)
    assert not reverberate(silence, noise_of(100)).any()


@pytest.mark.parametrize("samples", [1, 2, 1000, 48001])
def test_colour_keeps_length_and_level_and_is_smooth(samples: int) -> None:
    audio = noise_of(samples)
    heard = equalised(audio, 6.0, np.random.default_rng(1))
    assert heard.shape == audio.shape and np.isfinite(heard).all()
    assert rms(heard) == pytest.approx(rms(audio), rel=1e-3)
    assert not equalised(np.zeros(samples, np.float32), 6.0, np.random.default_rng(1)).any()
    if samples > 40000:
        gains = [
            20 * np.log10(np.abs(np.fft.rfft(x)[100:24000].reshape(-1, 100)).mean(1)) for x in (heard, audio)
        ]
        gain = gains[0] - gains[1]
        assert 3 < gain.max() - gain.min() < 40
        assert np.abs(np.diff(gain)).max() < 3


@pytest.mark.parametrize("samples", [1, 700, 16000, 48001])
@pytest.mark.parametrize("level", MP3_LEVELS)
def test_compression_keeps_length_level_and_time(samples: int, level: float) -> None:
    # a tone that swells: what is lost below full bandwidth is little
    time = np.arange(samples) / 16000
    audio = (2 * np.sin(2 * np.pi * 440 * time) * np.sin(np.pi * time) ** 2).astype(np.float32)
    heard = compressed(audio, level)
    assert heard.shape == audio.shape and np.isfinite(heard).all()
    if samples >= 16000:
        assert rms(heard - audio) < 0.2 * rms(audio)
        assert not np.array_equal(heard, audio)
    assert not compressed(np.zeros(samples, np.float32), level).any()


def test_reverberation_keeps_length_level_and_time() -> None:
    audio = np.zeros(16000, np.float32)
    audio[4000:4800] = noise_of(800)
    # the direct sound comes after 50 ms
    room = np.zeros(9000, np.float32)
    room[800:] = noise_of(8200) * np.exp(-np.arange(8200) / 2000)
    room[800] = 3.0
    wet = reverberate(audio, room)
    assert wet.shape == audio.shape
    assert rms(wet) == pytest.approx(rms(audio), rel=1e-3)
    assert np.abs(wet[:4000]).max() < 1e-4
    lag = np.argmax(np.correlate(wet, audio, "full")) - (len(audio) - 1)
    assert lag == 0
    assert rms(wet[4800:6400]) > 0.05 * rms(audio)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_carries_audio_and_alignment_along(factor: float, corpus: Corpus) -> None:
    cut = next(iter(load_manifest(corpus.aligned)))
    changed = Augmenter(AugmentConfig(speeds=(factor,))).speed(cut, np.random.default_rng(0))
    assert changed.duration == pytest.approx(cut.duration / factor, abs=1e-3)
    assert len(load_audio(changed)) == pytest.approx(len(load_audio(cut)) / factor, abs=2)
    for kind in ("word", "piece"):
        before, after = (c.supervisions[0].alignment[kind] for c in (cut, changed))
        assert [a.symbol for a in after] == [b.symbol for b in before]
        for b, a in zip(before, after, strict=True):
            assert a.start == pytest.approx(b.start / factor, abs=2e-3)
            assert a.end == pytest.approx(b.end / factor, abs=2e-3)
    # the words are where the alignment says: there is sound in them and none between them
    audio = load_audio(changed)
    words = changed.supervisions[0].alignment["word"]
    for word, following in itertools.pairwise(words):
        inside = audio[int((word.start + 0.05) * 16000) : int((word.end - 0.05) * 16000)]
        between = audio[int((word.end + 0.01) * 16000) : int((following.start - 0.01) * 16000)]
        assert rms(inside) > 0.1
        assert len(between) < 400 or rms(between) < 0.01


def test_no_speeds_leave_the_cut_alone(corpus: Corpus) -> None:
    cut = next(iter(load_manifest(corpus.aligned)))
    rng = np.random.default_rng(0)
    assert Augmenter(AugmentConfig()).speed(cut, rng) is cut
    assert Augmenter(AugmentConfig(speeds=(1.0,))).speed(cut, rng) is cut


def test_augmenter_applies_what_is_configured(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", noise_of(8000), 16000)
    (tmp_path / "noise.jsonl").write_text(json.dumps({"id": "n", "audio": "noise.wav"}) + "\n")
    audio = noise_of(16000, 1)
    manifest = str(tmp_path / "noise.jsonl")
    off = Augmenter(AugmentConfig(noise=manifest, noise_prob=0.0))
    assert all(np.array_equal(a, audio) for a in off.audio(audio, np.random.default_rng(0)))
    on = Augmenter(AugmentConfig(noise=manifest, noise_prob=1.0, noise_snr_db=(10.0, 10.0)))
    noisy, clean = on.audio(audio, np.random.default_rng(0))
    assert np.array_equal(clean, audio)
    assert 20 * np.log10(rms(audio) / rms(noisy - audio)) == pytest.approx(10, abs=0.1)
    assert np.array_equal(noisy, on.audio(audio, np.random.default_rng(0))[0])


def test_the_clean_audio_has_the_same_volume(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", noise_of(8000), 16000)
    (tmp_path / "noise.jsonl").write_text(json.dumps({"id": "n", "audio": "noise.wav"}) + "\n")
    config = AugmentConfig(
        noise=str(tmp_path / "noise.jsonl"), noise_prob=1.0, noise_snr_db=(60.0, 60.0), volume_db=12.0
    )
    noisy, clean = Augmenter(config).audio(0.1 * noise_of(16000, 1), np.random.default_rng(0))
    assert rms(noisy) == pytest.approx(rms(clean), rel=0.01) and not np.array_equal(noisy, clean)


@settings(deadline=None)
@given(st.floats(1.0, 40.0), st.integers(0, 1000))
def test_audio_stays_within_bounds(volume: float, seed: int) -> None:
    augmenter = Augmenter(AugmentConfig(volume_db=volume))
    for loud in augmenter.audio(noise_of(2000) * 5, np.random.default_rng(seed)):
        assert loud.dtype == np.float32
        assert np.abs(loud).max() <= 1


@settings(deadline=None)
@given(
    frames=st.integers(1, 40), dims=st.integers(1, 20), masks=st.integers(0, 3), widest=st.integers(0, 30),
    bands=st.integers(0, 2), band=st.integers(0, 8), seed=st.integers(0, 1000),
)  # fmt: skip
def test_masks_are_within_bounds(
    frames: int, dims: int, masks: int, widest: int, bands: int, band: int, seed: int
) -> None:
    torch.manual_seed(seed)
    config = AugmentConfig(
        time_masks=masks, time_mask_frames=widest, feature_masks=bands, feature_mask_bins=band
    )
    kept = SpecAugment(config)(torch.ones(3, frames, dims))
    assert set(kept.unique().tolist()) <= {0.0, 1.0}
    for row in kept:
        # a mask takes whole frames or whole bands
        time, feature = row.amax(1), row.amax(0)
        assert torch.equal(row, time[:, None] * feature[None]) or not row.any()
        if row.any():
            assert frames - int(time.sum()) <= masks * widest
            assert dims - int(feature.sum()) <= bands * band


def test_masks_reach_every_place_and_differ_between_rows() -> None:
    torch.manual_seed(1)
    augment = SpecAugment(AugmentConfig(time_masks=1, time_mask_frames=10))
    kept = augment(torch.ones(4000, 30, 1))[..., 0]
    hits = 1 - kept.mean(0)
    assert hits.min() > 0
    assert float((1 - kept).sum(1).mean()) == pytest.approx(5, abs=0.3)
    assert len({tuple(row.tolist()) for row in kept[:50]}) > 20


def test_off_means_off() -> None:
    assert not SpecAugment(AugmentConfig())
    assert SpecAugment(AugmentConfig(feature_masks=1, feature_mask_bins=3))


def test_time_masks_follow_the_length() -> None:
    torch.manual_seed(1)
    augment = SpecAugment(AugmentConfig(time_mask_share=0.1, time_mask_frames=10))
    for frames in (100, 1000):
        masked = 1 - augment(torch.ones(400, frames, 1)).mean()
        # masks may overlap
        assert float(masked) == pytest.approx(0.095, abs=0.02)
    with pytest.raises(UserError):
        AugmentConfig(time_mask_share=0.1, time_masks=2)


@pytest.mark.parametrize("samples", [1, 700, 48001])
def test_a_band_is_weakened_and_the_rest_stays(samples: int) -> None:
    audio = noise_of(samples)
    changed = without_band(audio, np.random.default_rng(2))
    assert changed.shape == audio.shape and np.isfinite(changed).all()
    if samples > 40000:
        gain = np.abs(np.fft.rfft(changed)) / np.abs(np.fft.rfft(audio))
        weakened = gain < 0.5
        assert 0.001 < weakened.mean() < 0.5
        assert np.median(gain) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_rumble_is_low_and_at_most_18_db_louder(seed: int) -> None:
    audio = noise_of(48000)
    low = rumble(audio, np.random.default_rng(seed))
    spectrum = np.abs(np.fft.rfft(low)) ** 2
    hertz = np.fft.rfftfreq(48000, 1 / 16000)
    assert spectrum[hertz < 200].sum() > 0.99 * spectrum.sum()
    assert -15.1 < 20 * np.log10(rms(low) / rms(audio)) < 18.1
