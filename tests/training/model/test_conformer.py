"""The Conformer keeps the encoder contract: its two forms agree, rows are independent, nothing leaks back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speech_reallm.errors import UserError
from speech_reallm.training.config import EncoderConfig
from speech_reallm.training.model.encoders.conformer import ConformerEncoder

TOLERANCE = {"atol": 5e-4, "rtol": 0}


def config(**changes) -> EncoderConfig:
    plain = {
        "kind": "conformer",
        "layers": 2,
        "dim": 16,
        "heads": 2,
        "ffn": 24,
        "left_chunks": 2,
        "mel_bins": 20,
    }
    return EncoderConfig(**(plain | changes))


def encoder(chunk_ms: int = 240, **changes) -> ConformerEncoder:
    """With all biases and norms away from their initial values, so that a mistake in any shows."""
    torch.manual_seed(0)
    model = ConformerEncoder(config(**changes), chunk_ms).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def speechlike(batch: int, samples: int, seed: int = 0) -> Tensor:
    """Noise whose loudness changes, with stretches of silence."""
    noise = torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))
    loudness = torch.rand(batch, samples // 480, generator=torch.Generator().manual_seed(seed + 1)) - 0.2
    return 0.3 * noise * loudness.clamp(min=0).repeat_interleave(480, 1)


@torch.no_grad()
def stream(model: ConformerEncoder, audio: Tensor, state: dict[str, Tensor] | None = None) -> Tensor:
    """Frames by step(), without those that the contract says to throw away."""
    state = state or model.init_state(len(audio))
    outputs = []
    for chunk in audio.split(model.chunk_samples, dim=1):
        frames, state = model.step(chunk, state)
        outputs.append(frames)
    return torch.cat(outputs[model.lookahead_chunks :], dim=1)


configs = st.fixed_dictionaries(
    {
        "lookahead": st.lists(st.integers(0, 1), max_size=4).map(tuple),
        "left_chunks": st.integers(0, 5),
        "conv_kernel": st.sampled_from([1, 2, 5, 9, 15]),
        "subsampling": st.sampled_from([2, 4]),
        "rotary_fraction": st.sampled_from([0.5, 0.9, 1.0]),
    }
)


@given(configs, st.integers(0, 2), st.sampled_from([120, 240, 480]), st.integers(1, 12), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_step_over_any_chunking_equals_forward(
    changes: dict, more_layers: int, chunk_ms: int, chunks: int, batch: int
) -> None:
    layers = max(1, len(changes["lookahead"])) + more_layers
    model = encoder(chunk_ms, layers=layers, **changes)
    audio = speechlike(batch, (chunks + model.lookahead_chunks) * model.chunk_samples)
    with torch.no_grad():
        expected = model(audio)
    assert expected.shape == (batch, chunks * model.frames_per_chunk, model.dim)
    torch.testing.assert_close(stream(model, audio), expected, **TOLERANCE)


@pytest.mark.parametrize("chunk_ms, frames", [(120, 3), (240, 6), (480, 12)])
def test_frames_are_40_ms(chunk_ms: int, frames: int) -> None:
    model = encoder(chunk_ms)
    assert (model.chunk_samples, model.frames_per_chunk) == (16 * chunk_ms, frames)
    assert model(torch.zeros(1, 2 * model.chunk_samples)).shape == (1, 2 * frames, model.dim)


def test_rows_of_a_batch_equal_singles() -> None:
    model = encoder(layers=3, lookahead=(1, 0, 1))
    audio = speechlike(3, 7 * model.chunk_samples)
    with torch.no_grad():
        whole = model(audio)
        for row in range(3):
            torch.testing.assert_close(model(audio[row : row + 1]), whole[row : row + 1], **TOLERANCE)


@torch.no_grad()
def test_rows_out_of_step_equal_streams_one_by_one() -> None:
    """Row 1 starts anew, with zeros for its state, while row 0 goes on."""
    model = encoder(layers=3, lookahead=(1, 1))
    size = model.chunk_samples
    audio = speechlike(2, 9 * size)
    state, kept = model.init_state(2), []
    for c in range(9):
        if c == 3:
            for value in state.values():
                value[1] = 0
        frames, state = model.step(audio[:, c * size : (c + 1) * size], state)
        kept.append(frames)
    torch.testing.assert_close(torch.cat(kept[2:], 1)[:1], stream(model, audio[:1]), **TOLERANCE)
    torch.testing.assert_close(torch.cat(kept[5:], 1)[1:], stream(model, audio[1:, 3 * size :]), **TOLERANCE)


@given(st.lists(st.integers(0, 1), max_size=3).map(tuple), st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_audio_after_the_lookahead_does_not_change_a_chunk(lookahead: tuple[int, ...], chunk: int) -> None:
    model = encoder(layers=3, lookahead=lookahead)
    ahead, size = model.lookahead_chunks, model.chunk_samples
    audio = speechlike(1, (7 + ahead) * size)
    changed = audio.clone()
    changed[:, (chunk + ahead) * size :] = speechlike(1, (7 - chunk) * size, seed=5)
    with torch.no_grad():
        before, after = (model(a).unflatten(1, (-1, model.frames_per_chunk)) for a in (audio, changed))
    assert torch.equal(before[:, :chunk], after[:, :chunk])
    # and the look-ahead is used: the first chunk that may change does
    assert not torch.equal(before[:, chunk], after[:, chunk])


def test_without_lookahead_later_frames_of_a_chunk_reach_earlier_ones_by_attention_alone() -> None:
    """Features, subsampling and convolutions are causal frame by frame, not just chunk by chunk."""
    model = encoder(layers=1)
    mel = torch.randn(1, 24, 20)
    changed = mel.clone()
    changed[:, 12:] += 1
    x, y = model.subsampling(mel), model.subsampling(changed)
    assert torch.equal(x[:, :3], y[:, :3])
    convolution = model.layers[0].convolution
    assert torch.equal(convolution(x)[:, :3], convolution(y)[:, :3])


def test_what_is_thrown_away_leaves_no_trace() -> None:
    """The steps before the first chunk has passed all look-ahead must leave convolution state at zero."""
    model = encoder(layers=3, lookahead=(1, 1, 0))
    _, state = model.step(speechlike(1, model.chunk_samples), model.init_state(1))
    assert state["layer0.conv"].count_nonzero() == 0
    assert state["layer2.conv"].count_nonzero() == 0


def test_initial_state_is_zeros_and_step_keeps_names_shapes_and_types() -> None:
    model = encoder(lookahead=(1,))
    state = model.init_state(2)
    _, new = model.step(torch.zeros(2, model.chunk_samples), state)
    assert not any(value.any() for value in state.values())
    assert list(new) == list(state)
    assert {k: (v.shape, v.dtype) for k, v in new.items()} == {
        k: (v.shape, v.dtype) for k, v in state.items()
    }


@pytest.mark.parametrize("full_context", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_gradient_is_finite_also_in_silence_and_under_bf16(full_context: bool, bf16: bool) -> None:
    model = encoder(lookahead=(1,), full_context=full_context, dropout=0.1).train()
    audio = speechlike(2, 4 * model.chunk_samples)
    audio[1] = 0
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = model(audio).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_bf16_is_near_float32() -> None:
    model = encoder(layers=3, lookahead=(1, 1))
    audio = speechlike(2, 8 * model.chunk_samples)
    with torch.no_grad():
        expected = model(audio)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = model(audio).float()
    assert (actual - expected).abs().mean() < 0.03 * expected.abs().mean()


def test_augment_gets_normalised_log_mel_and_its_result_is_used() -> None:
    model = encoder(lookahead=(1,))
    audio = speechlike(2, 5 * model.chunk_samples)
    seen = []

    def augment(mel: Tensor) -> Tensor:
        seen.append(mel)
        return torch.zeros_like(mel)

    frames = model(audio, augment=augment)
    assert seen[0].shape == (2, 5 * 24, 20)
    assert seen[0].dtype == torch.float32
    assert seen[0].abs().max() < 5
    # rows differ in audio alone, which augment has removed
    torch.testing.assert_close(frames[0], frames[1], **TOLERANCE)


def test_full_context_padding_has_no_influence() -> None:
    model = encoder(full_context=True, layers=3)
    size = model.chunk_samples
    audio = speechlike(2, 6 * size)
    audio[1, 3 * size - 100 :] = 0
    with torch.no_grad():
        both = model(audio, lengths=torch.tensor([6 * size, 3 * size - 100]))
        torch.testing.assert_close(model(audio[:1]), both[:1], **TOLERANCE)
        torch.testing.assert_close(model(audio[1:, : 3 * size]), both[1:, : 3 * 6], **TOLERANCE)


def test_full_context_sees_the_whole_utterance() -> None:
    model = encoder(full_context=True, layers=1)
    audio = speechlike(1, 12 * model.chunk_samples)
    changed = audio.clone()
    changed[:, -model.chunk_samples :] = 0.5
    with torch.no_grad():
        assert not torch.allclose(model(audio)[:, 0], model(changed)[:, 0], atol=1e-4)
    with pytest.raises(ValueError, match="streaming"):
        model.init_state(1)


@pytest.mark.parametrize("samples", [0, 3840, 2 * 3840 + 1])
def test_audio_of_a_wrong_length_is_an_error(samples: int) -> None:
    with pytest.raises(ValueError, match="3840"):
        encoder(lookahead=(1,))(torch.zeros(1, samples))


@pytest.mark.parametrize(
    "changes, key",
    [({"left_chunks": None}, "left_chunks"), ({"subsampling": 3}, "sub"), ({"subsampling": 8}, "sub")],
)
def test_a_config_that_cannot_be_built_names_the_key(changes: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        ConformerEncoder(config(**changes), chunk_ms=120)
