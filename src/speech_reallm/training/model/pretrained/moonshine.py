"""Published Moonshine weights (Jeffries et al., arXiv 2410.15608) as ours, encoder and cross-attending decoder.

Both conversions are exact. Theirs rotates neighbouring pairs of a head's dimensions, ours i with i + r / 2: rows are
reordered. Their decoder subtracts means in its normalisations: here whatever writes into the residual stream writes
with mean zero instead, so that RMS normalisation gives the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ....tokenizer import END, START


def load_moonshine(folder: str | Path, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Weights by our names: `encoder.*` of WaveformEncoder and, with `rows`, `decoder.*` of CrossAttentionDecoder.

    folder: with model.safetensors as Hugging Face has it. rows: the published id of each piece of our vocabulary.
    """
    full = {name: value.float() for name, value in load_file(Path(folder) / "model.safetensors").items()}
    result = {f"encoder.{k}": v for k, v in _encoder(_below(full, "model.encoder.")).items()}
    if rows is not None:
        result |= {f"decoder.{k}": v for k, v in _decoder(_below(full, "model.decoder."), rows).items()}
    return result


def _below(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}


def _reorder(weight: Tensor, heads: int = 8, fraction: float = 0.9) -> Tensor:
    """Rows of a published query or key projection in our order: even ones, odd ones, those that do not rotate."""
    rows = weight.unflatten(0, (heads, -1))
    rotary = int(rows.shape[1] * fraction) // 2 * 2
    return torch.cat((rows[:, 0:rotary:2], rows[:, 1:rotary:2], rows[:, rotary:]), dim=1).flatten(0, 1)


def _centred(weight: Tensor) -> Tensor:
    """What is written into the residual stream, dimension 0, with mean zero."""
    return weight - weight.mean(0, keepdim=True)


def _layers(source: dict[str, Tensor]) -> int:
    return sum(1 for k in source if k.endswith("self_attn.q_proj.weight"))


def _encoder(source: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {
        "conv1.weight": source["conv1.weight"],
        "norm_weight": source["groupnorm.weight"],
        "norm_bias": source["groupnorm.bias"],
        "norm.weight": source["layer_norm.weight"],
    }
    for conv in ("conv2", "conv3"):
        result |= {f"{conv}.{p}": source[f"{conv}.{p}"] for p in ("weight", "bias")}
    names = {
        "norm1": "input_layernorm",
        "norm2": "post_attention_layernorm",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    }
    for i in range(_layers(source)):
        at = f"layers.{i}."
        q, k, v = (source[f"{at}self_attn.{p}_proj.weight"] for p in "qkv")
        result[at + "attention.qkv.weight"] = torch.cat((_reorder(q), _reorder(k), v))
        result[at + "attention.out.weight"] = source[at + "self_attn.o_proj.weight"]
        for mine, published in names.items():
            for p in ("weight", "bias"):
                if at + f"{published}.{p}" in source:
                    result[at + f"{mine}.{p}"] = source[at + f"{published}.{p}"]
    return result


def _decoder(source: dict[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    table = source["embed_tokens.weight"][torch.as_tensor(rows)]
    # one table embeds and predicts there; its means count in the predictions
    head = table.clone()
    if list(rows).count(rows[END]) > 1:
        # BLANK is what the end of the text was (from_moonshine.py); now that is predicted as rarely as the beginning
        head[END] = table[START]
    result = {"embed.weight": _centred(table.T).T, "head.weight": head, "norm.weight": source["norm.weight"]}
    for i in range(_layers(source)):
        theirs, ours = f"layers.{i}.", f"blocks.{i}."
        own, other = theirs + "self_attn.", theirs + "encoder_attn."
        # fc1 is value and gate in one
        (up, gate), (up_bias, gate_bias) = (
            source[f"{theirs}mlp.fc1.{p}"].chunk(2) for p in ("weight", "bias")
        )
        result |= {
            ours + "norm1.weight": source[theirs + "input_layernorm.weight"],
            ours + "q.weight": _reorder(source[own + "q_proj.weight"]),
            ours + "k.weight": _reorder(source[own + "k_proj.weight"]),
            ours + "v.weight": source[own + "v_proj.weight"],
            ours + "out.weight": _centred(source[own + "o_proj.weight"]),
            ours + "norm_cross_attention.weight": source[theirs + "post_attention_layernorm.weight"],
            ours + "cross_attention.q.weight": source[other + "q_proj.weight"],
            ours + "cross_attention.k.weight": source[other + "k_proj.weight"],
            ours + "cross_attention.v.weight": source[other + "v_proj.weight"],
            ours + "cross_attention.out.weight": _centred(source[other + "o_proj.weight"]),
            ours + "norm2.weight": source[theirs + "final_layernorm.weight"],
            ours + "up.weight": up,
            ours + "up.bias": up_bias,
            ours + "gate.weight": gate,
            ours + "gate.bias": gate_bias,
            ours + "down.weight": _centred(source[theirs + "mlp.fc2.weight"]),
            ours + "down.bias": _centred(source[theirs + "mlp.fc2.bias"]),
        }
    return {k: v.contiguous() for k, v in result.items()}
