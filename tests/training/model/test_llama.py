"""Our Llama equals Hugging Face's on the same weights; step() with its ring equals forward() with its window."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.training.config import DecoderConfig, EncoderConfig, ModelConfig
from speech_reallm.training.model.decoders.cross_attention import SINK_DISTANCE, CrossAttentionDecoder
from speech_reallm.training.model.decoders.llama import LlamaStack, cache_of, write_past
from speech_reallm.training.model.pretrained.llama import llama_weights

TINY = {"layers": 2, "dim": 32, "heads": 4, "ffn": 48}


def run_steps(model: LlamaStack, x: torch.Tensor, first: int = 0) -> torch.Tensor:
    """Logits [B, T, V] step by step from position `first` on, the rings kept as a decoder keeps them."""
    rows = torch.arange(len(x))
    state, logits = model.init_cache(len(x)) | {"position": torch.full((len(x),), first)}, []
    for t in range(x.shape[1]):
        out, new = model.step_logits(x[:, t], state["position"], cache_of(state))
        write_past(state, rows, state["position"] % (model.window - 1), new)
        logits.append(out)
    return torch.stack(logits, 1)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_equals_hugging_face_on_the_same_weights(kv_heads):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, rms_norm_eps=1e-5, rope_theta=10000.0, max_position_embeddings=512,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    ours = LlamaStack(DecoderConfig(**TINY, kv_heads=kv_heads, window=128), 50).eval()
    ours.load_state_dict(llama_weights(theirs.state_dict(), 2))
    ids = torch.randint(0, 50, (2, 40))
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours.text_logits(ids), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(run_steps(ours, ours.embed(ids)), expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    window=st.integers(2, 30),
    length=st.integers(1, 50),
    kv=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 99),
)
def test_step_with_its_ring_equals_forward_with_its_window(window, length, kv, seed):
    torch.manual_seed(seed)
    model = LlamaStack(DecoderConfig(**TINY, kv_heads=kv, window=window), 20).eval()
    x = torch.randn(2, length, 32)
    with torch.no_grad():
        torch.testing.assert_close(run_steps(model, x), model.logits(x), atol=1e-4, rtol=1e-4)


def test_positions_may_grow_without_bound():
    """Far out in a stream, only relative positions count: the same inputs give the same answer as at the start."""
    torch.manual_seed(0)
    model = LlamaStack(DecoderConfig(**TINY, window=5), 20).eval()
    x = torch.randn(1, 12, 32)
    with torch.no_grad():
        found = run_steps(model, x, first=4 * 10_000_000)
        torch.testing.assert_close(found[:, -1], model.logits(x)[:, -1], atol=1e-4, rtol=1e-4)


def test_the_attention_sink_stays_within_its_distance():
    """However long ago the first step was, it is attended to as at SINK_DISTANCE; before, the distance counts."""
    torch.manual_seed(0)
    decoder = DecoderConfig(**TINY, window=8, cross_attention_chunks=2, mlp_bias=True)
    encoder = EncoderConfig(kind="waveform", layers=1, dim=16, heads=2, ffn=16)
    config = ModelConfig(encoder=encoder, decoder=decoder, vocab_size=20)
    model = CrossAttentionDecoder(config, frame_dim=16, frames_per_chunk=3).eval()
    state = model.init_state(4)
    for name, ring in cache_of(state).items():
        first = ring[..., 0] if name.endswith("k") else ring[:, :, 0]
        first[:] = torch.randn(4, 8) * 3
    state["position"] = torch.tensor([SINK_DISTANCE - 300, SINK_DISTANCE, SINK_DISTANCE + 1, 90_000])
    state["embedding"] = torch.randn(1, 32).expand(4, -1)
    with torch.no_grad():
        log_probs, _ = model.step(state)
    torch.testing.assert_close(log_probs[2:], log_probs[1:2].expand(2, -1), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(log_probs[0], log_probs[1], atol=1e-2)
