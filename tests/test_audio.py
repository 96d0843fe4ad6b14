"""Samples of every kind come in as float32 [n, channels]; what is unusable is refused in one clear line."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from fake_model import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.audio import Resampler, scrub, to_channels
from speech_reallm.errors import UserError


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 6000), max_size=12))
def test_resampling_does_not_depend_on_the_cuts(rate: int, cuts: list[int]) -> None:
    audio = speech(0.2, rate=rate)
    stream = Resampler(rate)
    parts = [stream.push(part) for part in np.split(audio, sorted(c for c in cuts if c < len(audio)))]
    parts.append(stream.push(np.zeros(0, np.float32), last=True))
    np.testing.assert_allclose(np.concatenate(parts), soxr.resample(audio, rate, 16000), atol=1e-6)


def test_pcm_of_every_kind() -> None:
    audio = speech(0.1)
    column = audio[:, None]
    integers = np.round(audio * 32767).astype(np.int16)
    np.testing.assert_allclose(to_channels(integers), column, atol=1e-4)
    np.testing.assert_array_equal(to_channels(integers.tobytes()), to_channels(integers))
    np.testing.assert_array_equal(to_channels(memoryview(integers.tobytes())), to_channels(integers))
    np.testing.assert_allclose(to_channels(integers.astype(np.int32) << 16), to_channels(integers), atol=1e-6)
    np.testing.assert_allclose(to_channels(audio.astype(np.float64)), column)
    stereo = np.stack([audio, audio * 0], axis=1)
    np.testing.assert_array_equal(to_channels(stereo), stereo)
    np.testing.assert_array_equal(to_channels(column), column)
    assert to_channels(b"").shape == (0, 1)
    assert to_channels(np.zeros(0)).shape == (0, 1)
    assert to_channels(np.zeros((0, 2), np.float32)).shape == (0, 2)
    # a short block is no array that lies on its side
    assert to_channels(np.zeros((2, 6), np.float32)).shape == (2, 6)
    assert to_channels(np.zeros((1, 2), np.float32)).shape == (1, 2)


@pytest.mark.parametrize("shape", [(2, 48000), (1, 48000), (1, 160), (6, 4000), (100, 480)])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_channels_first_is_refused(shape: tuple[int, int], dtype: type) -> None:
    with pytest.raises(UserError, match=r"\[n, channels\].*pcm\.T"):
        to_channels(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    "pcm",
    [
        np.zeros(4, np.uint8),
        np.zeros((2, 2, 2)),
        np.zeros(3, complex),
        b"123",
        np.zeros((4, 0)),
        "text",
        None,
        np.array([0.0, np.nan]),
        np.array([0.0, -np.inf]),
        np.array([0.0, 32767.0]),
    ],
)
def test_other_pcm_is_refused(pcm: object) -> None:
    with pytest.raises(UserError, match=r"PCM"):
        to_channels(pcm)


@pytest.mark.parametrize("rate", [0, -1, 7999, 192001, 16000.5, True])
def test_odd_rates_are_refused(rate: float) -> None:
    with pytest.raises(UserError, match="sample rate"):
        Resampler(rate)


def test_scrubbing_touches_nothing_else() -> None:
    audio = np.stack([speech(0.1), speech(0.1, 1)], axis=1)
    assert scrub(audio, "it")[0] is audio
    broken = audio.copy()
    broken[[3, 700], 0] = np.nan, 1e30
    broken[3, 1] = -np.inf
    clean, bad = scrub(broken, "it")
    assert bad == 2 and clean.dtype == np.float32
    expected = audio.copy()
    expected[[3, 700], 0] = 0
    expected[3, 1] = 0
    np.testing.assert_array_equal(clean, expected)
    with pytest.raises(UserError, match="scale"):
        scrub(audio * 32767, "it")
