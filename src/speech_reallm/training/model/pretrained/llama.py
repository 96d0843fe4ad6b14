"""Weights of a Hugging Face LlamaForCausalLM under our names."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ....errors import UserError
from ....tokenizer import open_tokenizer

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


def read_shards(folder: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors, or of the files that model.safetensors.index.json names. Raises UserError."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return load_file(folder / "model.safetensors")
    try:
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if any(Path(name).name != name for name in files):
            raise ValueError
        return {name: value for file in files for name, value in load_file(folder / file).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} does not name the weights of this folder") from None


def load_decoder(folder: Path) -> dict[str, Tensor]:
    """Weights `decoder.*` of a PretrainedDecoder; of rows that the tokenizer has no piece for nothing is kept.

    Raises UserError.
    """
    pieces = open_tokenizer(folder / "tokenizer.json").vocab_size - 1
    theirs = read_shards(folder)
    layers = 1 + max(int(name.split(".")[2]) for name in theirs if name.startswith("model.layers."))
    ours = llama_weights(theirs, layers)
    table = ours.pop("embed.weight")[:pieces]
    found = {"head.pieces.weight": ours.pop("head.weight")[:pieces], "embed.weight": table, **ours}
    return {f"decoder.{name}": value.float() for name, value in found.items()}
