"""Log-mel features: equal to Kaldi's, causal, the same for a stream as for the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.training.model.encoders.features import HOP, PAST, LogMel


def kaldi(audio: np.ndarray, bins: int = 80) -> np.ndarray:
    """Kaldi's own features of the left-padded audio [n] -> [T, bins]."""
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = bins
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(16000, np.concatenate((np.zeros(PAST), audio)).astype(np.float32).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


def sound(kind: str, n: int) -> np.ndarray:
    rng = np.random.default_rng(len(kind))
    t = np.arange(n) / 16000
    return {
        "noise": 0.1 * rng.standard_normal(n),
        "quiet": 1e-4 * rng.standard_normal(n),
        "offset": 0.3 + 0.01 * rng.standard_normal(n),
        "chirp": 0.5 * np.sin(2 * np.pi * (100 + 1500 * t) * t) + 1e-3 * rng.standard_normal(n),
        "silence": np.zeros(n),
        "after silence": np.where(t < 0.3, 0, 0.2 * rng.standard_normal(n)),
    }[kind].astype(np.float32)


def log_mel(audio: np.ndarray | torch.Tensor, bins: int = 80) -> torch.Tensor:
    audio = torch.as_tensor(audio)
    return LogMel(bins)(torch.nn.functional.pad(audio[None], (PAST, 0)))[0]


@pytest.mark.parametrize("kind", ["noise", "quiet", "offset", "chirp", "silence", "after silence"])
@pytest.mark.parametrize("bins", [40, 80])
def test_equals_kaldi_native_fbank(kind: str, bins: int) -> None:
    audio = sound(kind, 16000)
    expected = kaldi(audio, bins)
    assert expected.shape == (100, bins)
    # the difference is largest in weak bins beside strong ones, where ours is nearer to float64 than Kaldi's
    torch.testing.assert_close(log_mel(audio, bins), torch.from_numpy(expected), atol=1e-2, rtol=0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6))
@settings(max_examples=20, deadline=None)
def test_stream_over_any_chunking_equals_whole(hops: list[int]) -> None:
    audio = torch.from_numpy(sound("after silence", sum(hops) * HOP))
    features, past, parts = LogMel(), torch.zeros(1, PAST), []
    for chunk in audio[None].split([h * HOP for h in hops], dim=1):
        window = torch.cat((past, chunk), dim=1)
        parts.append(features(window)[0])
        past = window[:, -PAST:]
    torch.testing.assert_close(torch.cat(parts), log_mel(audio), atol=1e-4, rtol=0)


def test_a_frame_uses_no_audio_after_its_hop() -> None:
    audio = torch.from_numpy(sound("noise", 20 * HOP))
    changed = audio.clone()
    changed[10 * HOP :] += 0.5 * torch.randn(10 * HOP)
    before, after = log_mel(audio), log_mel(changed)
    assert torch.equal(before[:10], after[:10])
    assert not torch.isclose(before[10], after[10]).all()


def test_float32_under_autocast() -> None:
    audio = torch.from_numpy(sound("chirp", 16000))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = log_mel(audio)
    assert result.dtype == torch.float32
    assert torch.equal(result, log_mel(audio))


def test_gradient_is_finite_in_silence() -> None:
    audio = torch.zeros(16000, requires_grad=True)
    log_mel(audio).sum().backward()
    assert audio.grad is not None
    assert audio.grad.isfinite().all()


def test_a_length_that_is_not_whole_hops_is_an_error() -> None:
    with pytest.raises(ValueError, match="160"):
        LogMel()(torch.zeros(1, PAST + HOP + 1))


def test_constants_are_not_saved() -> None:
    assert not LogMel().state_dict()
