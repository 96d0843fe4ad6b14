"""Of many channels the speech is kept: nothing cancels out, noise and effects stay out, choices are obeyed."""

from __future__ import annotations

import numpy as np
import pytest
from fake_model import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm import Recognizer, UserError
from speech_reallm.channels import OGG_LAYOUTS, USUAL_LAYOUTS, Mixer, layout_of_mask

RATE = 16000


def talk(seconds: float, seed: int = 0) -> np.ndarray:
    """Bursts of noise with pauses, as speech has them, float32 [n]."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    envelope = np.repeat(rng.random(n // 3200 + 1) > 0.4, 3200)[:n]
    sound = np.convolve(rng.standard_normal(n), np.ones(6) / 6, "same")
    return (0.2 * envelope * sound + 1e-4 * rng.standard_normal(n)).astype(np.float32)


def noise(seconds: float, level: float, seed: int = 9) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


def mixed(*channels: np.ndarray, layout: tuple[str, ...] | None = None, **options: object) -> np.ndarray:
    return Mixer(RATE, len(channels), layout, **options).push(np.stack(channels, axis=1))


def alike(a: np.ndarray, b: np.ndarray, since: float = 1.0) -> float:
    """Correlation after the first second."""
    start = int(since * RATE)
    return float(np.corrcoef(a[start:], b[start:])[0, 1])


def test_the_same_in_both_is_the_average() -> None:
    voice = talk(4)
    np.testing.assert_allclose(mixed(voice, voice), voice, atol=1e-6)
    np.testing.assert_allclose(mixed(voice, voice * 0.5)[RATE:], voice[RATE:] * 0.75, atol=1e-6)


@pytest.mark.parametrize("share", [-1.0, -0.97, -0.4])
@pytest.mark.parametrize("level", [0.0, 0.01])
def test_an_inverted_channel_does_not_cancel(share: float, level: float) -> None:
    voice, told = talk(5), []
    left, right = voice + noise(5, level, 1), voice * share + noise(5, level, 2)
    out = mixed(left, right, notify=told.append)
    assert abs(alike(out, voice)) > 0.9
    assert len(told) == 1 and "upside down" in told[0]
    # hum that both lines pick up alike must not pass for the same sound
    hum = (0.3 * np.sin(2 * np.pi * 50 * np.arange(len(voice)) / RATE)).astype(np.float32)
    assert abs(alike(mixed(left + hum, right + hum), hum)) < 0.99


def test_nothing_is_told_of_ordinary_sound() -> None:
    told: list[str] = []
    voice, other = talk(6), talk(6, 1)
    mixed(voice, voice * 0.3 + noise(6, 0.001), notify=told.append)
    mixed(voice, other, notify=told.append)
    mixed(voice, voice * 0, notify=told.append)
    mixed(noise(6, 0.1, 1), noise(6, 0.1, 2), notify=told.append)
    assert told == []


def test_one_sided_stereo_is_as_loud_as_it_was() -> None:
    voice = talk(4)
    np.testing.assert_allclose(mixed(voice, voice * 0)[RATE:], voice[RATE:], atol=1e-6)
    np.testing.assert_allclose(mixed(voice * 0, voice)[RATE:], voice[RATE:], atol=1e-6)


@pytest.mark.parametrize("swap", [False, True])
def test_noise_on_one_side_stays_out(swap: bool) -> None:
    voice, hiss, told = talk(8), noise(8, 0.05), []
    out = mixed(*((hiss, voice) if swap else (voice, hiss)), notify=told.append)
    # the first pause shows what is noise
    assert alike(out, voice, since=3) > 0.98
    assert len(told) == 1 and f"channel {1 if swap else 2} has noise" in told[0]


def test_both_callers_are_heard() -> None:
    """A caller in each channel, one after the other."""
    first, second = talk(8, 1), talk(8, 2)
    half = len(first) // 2
    first[half:], second[:half] = noise(4, 1e-4, 3), noise(4, 1e-4, 4)
    out = mixed(first, second)
    assert alike(out[:half], first[:half]) > 0.95 and alike(out[half:], second[half:]) > 0.95


@pytest.mark.parametrize("layouts", [USUAL_LAYOUTS, OGG_LAYOUTS])
@pytest.mark.parametrize("channels", [6, 8])
@pytest.mark.parametrize("declared", [False, True])
def test_surround_sound_is_its_dialogue(
    layouts: dict[int, tuple[str, ...]], channels: int, declared: bool
) -> None:
    layout = layouts[channels]
    if not declared and layouts is OGG_LAYOUTS:
        pytest.skip("who does not say means the usual order")
    voice, effects = talk(8), talk(8, 5) * 2
    rumble = (0.5 * np.sin(2 * np.pi * 40 * np.arange(len(voice)) / RATE)).astype(np.float32)
    sounds = {"FC": voice, "LFE": rumble, "FL": noise(8, 0.004, 1), "FR": noise(8, 0.004, 2)}
    out = mixed(*(sounds.get(name, effects) for name in layout), layout=layout if declared else None)
    assert alike(out, voice, since=3) > 0.98


def test_surround_sound_without_a_centre_is_its_front() -> None:
    voice = talk(6)
    silence = voice * 0
    out = mixed(voice, voice, silence, silence, talk(6, 5), talk(6, 6))
    assert alike(out, voice, since=2) > 0.98


def test_six_microphones_are_not_taken_for_surround_sound_for_ever() -> None:
    quiet = [noise(3, 1e-4, seed) for seed in range(5)]
    voice = talk(3)
    assert alike(mixed(*quiet[:4], voice, quiet[4]), voice) > 0.95


def test_a_choice_is_obeyed() -> None:
    sounds = [talk(1, seed) for seed in range(6)]
    for choice, index in [("1", 0), (2, 1), ("left", 0), ("Right", 1), ("center", 2), ("6", 5)]:
        np.testing.assert_array_equal(mixed(*sounds, choice=choice), sounds[index])
    for choice in ("0", "-1", "7", "middle", "1.5", ""):
        with pytest.raises(UserError, match="channel"):
            mixed(*sounds, choice=choice)
    with pytest.raises(UserError, match="one channel"):
        mixed(sounds[0], choice="right")


def test_masks() -> None:
    assert layout_of_mask(0x3F, 6) == USUAL_LAYOUTS[6]
    assert layout_of_mask(0x3, 2) == ("FL", "FR")
    assert layout_of_mask(0, 6) is None and layout_of_mask(0x3F, 5) is None


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 16000), max_size=12))
def test_how_it_is_cut_makes_no_difference(cuts: list[int]) -> None:
    samples = np.stack([talk(1), -talk(1) + noise(1, 0.02), noise(1, 0.05)], axis=1)
    mixer = Mixer(RATE, 3)
    parts = [mixer.push(part) for part in np.split(samples, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(parts), Mixer(RATE, 3).push(samples))


def test_a_stream_takes_many_channels(recognizer: Recognizer) -> None:
    voice = speech(2.0)
    stream = recognizer.stream()
    stream.accept(np.stack([voice, -voice], axis=1))
    assert stream.finish().text
    with pytest.raises(UserError, match=r"\[n, channels\]"):
        recognizer.stream().accept(np.stack([voice, voice]))
