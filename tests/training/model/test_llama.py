"""Our Llama equals Hugging Face's on the same weights; step() with its ring equals forward() with its window."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.training.config import DecoderConfig
from speech_reallm.training.model.decoders.llama import REACH, LlamaDecoder
from speech_reallm.training.model.encoders.block_attention import write_ring

TINY = {"layers": 2, "dim": 32, "heads": 4, "ffn": 48}


def run_steps(model: LlamaDecoder, x: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] by step(), the caller keeping the ring."""
    cache, logits = model.init_cache(len(x)), []
    for t in range(x.shape[1]):
        position = torch.full((len(x),), t)
        out, new = model.step(x[:, t], position, cache)
        cache = {name: write_ring(cache[name], new[name], position % (model.window - 1)) for name in cache}
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
    ours = LlamaDecoder(DecoderConfig(**TINY, kv_heads=kv_heads, window=128), 50).eval()
    ours.load_huggingface(theirs.state_dict())
    ids = torch.randint(0, 50, (2, 40))
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours(ours.embed(ids)), expected, atol=1e-4, rtol=1e-4)
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
    model = LlamaDecoder(DecoderConfig(**TINY, kv_heads=kv, window=window), 20).eval()
    x = torch.randn(2, length, 32)
    with torch.no_grad():
        torch.testing.assert_close(run_steps(model, x), model(x), atol=1e-4, rtol=1e-4)


def test_positions_may_grow_without_bound():
    """Far out in a stream, only relative positions count: the same inputs give the same answer as at the start."""
    torch.manual_seed(0)
    model = LlamaDecoder(DecoderConfig(**TINY, window=5), 20).eval()
    x = torch.randn(1, 12, 32)
    far = 4 * 10_000_000
    cache = model.init_cache(1)
    with torch.no_grad():
        for t in range(12):
            position = torch.tensor([far + t])
            out, new = model.step(x[:, t], position, cache)
            cache = {name: write_ring(cache[name], new[name], position % 4) for name in cache}
        torch.testing.assert_close(out, model(x)[:, -1], atol=1e-4, rtol=1e-4)


def test_a_reading_decoders_first_step_stays_within_reach():
    """However long ago it was, it is seen as at REACH; before, the distance counts."""
    torch.manual_seed(0)
    config = DecoderConfig(**TINY, window=8, frame_chunks=2, mlp_bias=True)
    model = LlamaDecoder(config, 20, frame_dim=16, frames_per_chunk=3).eval()
    cache = model.init_cache(4)
    for name, ring in cache.items():
        first = ring[..., 0] if name.endswith("k") else ring[:, :, 0]
        first[:] = torch.randn(4, 8) * 3
    positions = torch.tensor([REACH - 300, REACH, REACH + 1, 90_000])
    x, cross = torch.randn(1, 32).expand(4, -1), model.init_cross(4)
    with torch.no_grad():
        logits, _ = model.step(x, positions, cache, cross, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(logits[2:], logits[1:2].expand(2, -1), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits[0], logits[1], atol=1e-2)
