"""Weights of a Hugging Face LlamaForCausalLM under our names."""

from __future__ import annotations

from torch import Tensor

_LAYER = {
    "norm1": "input_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
    "out": "self_attn.o_proj", "norm2": "post_attention_layernorm",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip


def llama_weights(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """weights: a state dict of theirs. Returns that of a LlamaStack of the same shape with so many layers."""
    tied = "lm_head.weight" not in weights
    names = {
        "embed.weight": "model.embed_tokens.weight",
        "norm.weight": "model.norm.weight",
        "head.weight": "model.embed_tokens.weight" if tied else "lm_head.weight",
    }
    for i in range(layers):
        names |= {f"blocks.{i}.{a}.weight": f"model.layers.{i}.{b}.weight" for a, b in _LAYER.items()}
    return {ours: weights[theirs] for ours, theirs in names.items()}
