"""Model sizes by name, for `model: {preset: NAME}` in a training file, for benchmarks and for tests."""

from __future__ import annotations

from typing import Any

from ...errors import UserError
from .model import DecoderConfig, EncoderConfig, ModelConfig
from .reader import merge, to_dict

PRESETS: dict[str, ModelConfig] = {
    # The size of the Speech ReaLLM paper (Seide et al., arXiv 2406.09569): 80 M parameters, 20 Conformer
    # layers, 2 Llama layers, 240 ms chunks, 960 ms of look-ahead. Widths and vocabulary are our choice.
    "paper-80m": ModelConfig(
        encoder=EncoderConfig(
            kind="conformer",
            layers=20,
            dim=384,
            heads=6,
            ffn=1536,
            left_chunks=16,
            lookahead=(1, 1, 1, 1),
            conv_kernel=15,
            dropout=0.1,
        ),
        # the window is as long as the longest example: 36 s are 150 embeddings, and the pieces between them
        decoder=DecoderConfig(layers=2, dim=512, heads=8, ffn=1408, window=400, dropout=0.1),
        vocab_size=4096,
        delays=(0, 1, 2),
    ),
    # Trains on a CPU.
    "small": ModelConfig(
        encoder=EncoderConfig(
            kind="conformer",
            layers=8,
            dim=144,
            heads=4,
            ffn=576,
            left_chunks=16,
            lookahead=(1, 1),
        ),
        decoder=DecoderConfig(layers=2, dim=256, heads=4, ffn=704),
        vocab_size=512,
    ),
    # For tests: has every part, learns next to nothing.
    "debug": ModelConfig(
        encoder=EncoderConfig(
            kind="conformer", layers=2, dim=32, heads=2, ffn=64, left_chunks=4, lookahead=(1,), conv_kernel=5
        ),
        decoder=DecoderConfig(layers=2, dim=32, heads=2, ffn=64, window=64),
        vocab_size=64,
    ),
}


def with_preset(model: dict[str, Any]) -> dict[str, Any]:
    """The `model` of a training file as plain data, with what it leaves out taken from its `preset`, if any.

    Raises UserError for a preset that there is not.
    """
    name = model.get("preset")
    if name is None:
        return model
    if not isinstance(name, str) or name not in PRESETS:
        raise UserError(f"model.preset: {name!r} is not one of {', '.join(PRESETS)}")
    return merge(to_dict(PRESETS[name]), {k: v for k, v in model.items() if k != "preset"})
