"""What a decoder's graph is fed at each step: one class for each kind of decoder, chosen here and nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from ..modelfolder import ModelFolder
from .graphs import Ring, Signature, expect, ring

# inputs or outputs of a graph by name, each for one stream
Arrays = dict[str, np.ndarray]


class StepDecoder(Protocol):
    """Feeds one kind of decoder graph. next_chunk and commit change its inputs in place."""

    def describe(self) -> dict[str, Any]:
        """What `reallm models` says of the decoder: its kind as `decoder`, and its own settings."""

    def check(self, inputs: Signature, outputs: Signature, encoder_outputs: Signature) -> None:
        """Raises UserError where the graphs are not those of such a decoder. To be called before all others."""

    def next_chunk(self, inputs: Arrays, chunk: int, encoded: Arrays) -> None:
        """Go on to the chunk with this index, of which `encoded` are the encoder's outputs."""

    def commit(self, inputs: Arrays, piece: int | None, outputs: Arrays) -> None:
        """Take in a step that emitted `piece`, None for BLANK; `outputs` are those of the graph."""


def step_decoder(folder: ModelFolder) -> StepDecoder:
    """The decoder of a model folder."""
    if folder.decoder == "transducer":
        from .transducer import TransducerSteps

        return TransducerSteps(folder)
    if folder.cross_attention_chunks:
        from .cross_attention import CrossAttentionSteps

        return CrossAttentionSteps(folder)
    from .interleaving import InterleavingSteps

    return InterleavingSteps(folder)


class Past:
    """The rings of keys and values of a decoder's past: `cache.*` inputs, each written from an output of the graph.

    In folders of format 2 one ring, `cache.k` or `cache.v`, holds all layers, and the outputs are `new.k` and `new.v`.
    """

    def __init__(self, folder: ModelFolder, inputs: Signature, outputs: Signature) -> None:
        """Raises UserError where the graph's rings do not hold the window of config.json."""
        path, self.steps = folder.file("decoder.onnx"), folder.window - 1
        self.rings: dict[str, tuple[str, Ring]] = {}
        for name in (n for n in inputs if n.startswith("cache.")):
            if name in ("cache.k", "cache.v"):
                new = name.replace("cache", "new")
                shape = expect(inputs, name, (None, self.steps, None), np.float32, path)
                expect(outputs, new, (shape[0], shape[2]), np.float32, path)
                self.rings[name] = new, Ring(2, 1, self.steps, squeezed=True)
                continue
            made = ring(inputs, name, outputs, f"new_{name}", path)
            if made.slots != self.steps:
                raise UserError(
                    f"{path}: {name} is {list(inputs[name][0])}, which does not hold the {self.steps} steps that "
                    "config.json asks for; export the model again"
                )
            self.rings[name] = f"new_{name}", made
        if not self.rings:
            raise UserError(f"{path} has no cache.k; export the model again")

    def write(self, inputs: Arrays, slot: int, outputs: Arrays) -> None:
        """Keys and values of a step go into `slot`, and the position moves on by one."""
        for name, (new, place) in self.rings.items():
            place.write(inputs[name], outputs[new], slot)
        inputs["position"] += 1


def check_decoder(
    folder: ModelFolder,
    inputs: Signature,
    outputs: Signature,
    encoder_outputs: Signature,
    others: Collection[str],
) -> Past:
    """What holds for every kind: no inputs but the common ones and `others`, log-probabilities. Raises UserError."""
    path = folder.file("decoder.onnx")
    expect(inputs, "embedding", encoder_outputs["embedding"][0], np.float32, path)
    expect(inputs, "piece", (), np.int64, path)
    expect(inputs, "position", (), np.int64, path)
    past = Past(folder, inputs, outputs)
    if set(inputs) != {"embedding", "piece", "position", *past.rings, *others}:
        raise UserError(f"{path}: not a decoder's inputs: {', '.join(inputs)}; export the model again")
    expect(outputs, "log_probs", (folder.vocab_size,), np.float32, path)
    return past
