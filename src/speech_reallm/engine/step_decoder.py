"""What a decoder's graph is fed at each step: one class for each kind of decoder, chosen here and nowhere else."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from ..modelfolder import ModelFolder
from .graphs import Signature, expect

# the inputs of a decoder's graph, for a batch of streams
Arrays = dict[str, np.ndarray]


class StepDecoder(Protocol):
    """Feeds one kind of decoder graph. All methods but the first two change row `row` of its inputs in place."""

    def describe(self) -> dict[str, Any]:
        """What `reallm models` says of the decoder: its kind as `decoder`, and its own settings."""

    def check(self, inputs: Signature, outputs: Signature, encoder_outputs: Signature) -> None:
        """Raises UserError where the graphs are not those of such a decoder."""

    def next_chunk(
        self, inputs: Arrays, row: int, chunk: int, embedding: np.ndarray, frames: np.ndarray | None
    ) -> None:
        """Go on to the embedding [D] of the chunk with this index; its frames [F, E] where the encoder gives them."""

    def commit(
        self, inputs: Arrays, row: int, piece: int | None, keys: np.ndarray, values: np.ndarray
    ) -> None:
        """Take in a step that emitted `piece`, None for BLANK, and its keys and values [L, H*d]."""


def step_decoder(folder: ModelFolder) -> StepDecoder:
    """The decoder of a model folder."""
    if folder.cross_attention_chunks:
        from .cross_attention import CrossAttentionSteps

        return CrossAttentionSteps(folder)
    from .interleaving import InterleavingSteps

    return InterleavingSteps(folder)


def check_decoder(
    folder: ModelFolder, inputs: Signature, outputs: Signature, encoder_outputs: Signature, count: int
) -> None:
    """What holds for every kind: `count` inputs, the ring of the past, log-probabilities. Raises UserError."""
    path = folder.file("decoder.onnx")
    expect(inputs, "embedding", encoder_outputs["embedding"][0], np.float32, path)
    expect(inputs, "piece", (), np.int64, path)
    expect(inputs, "position", (), np.int64, path)
    cache = expect(inputs, "cache.k", (None, folder.window - 1, None), np.float32, path)
    expect(inputs, "cache.v", cache, np.float32, path)
    if len(inputs) != count:
        raise UserError(f"{path}: not a decoder's inputs: {', '.join(inputs)}; export the model again")
    expect(outputs, "log_probs", (folder.vocab_size,), np.float32, path)
    for name in ("new.k", "new.v"):
        expect(outputs, name, (cache[0], cache[2]), np.float32, path)


def write_past(inputs: Arrays, row: int, slot: int, keys: np.ndarray, values: np.ndarray) -> None:
    """Keys and values [L, H*d] of a step go into `slot` of the ring of a row, and its position moves on by one."""
    inputs["cache.k"][row, :, slot] = keys
    inputs["cache.v"][row, :, slot] = values
    inputs["position"][row] += 1
