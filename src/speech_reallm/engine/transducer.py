"""The steps of a transducer: a recurrent network reads the text, and every step joins it with the current embedding."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UserError
from ..modelfolder import ModelFolder
from .graphs import Signature, expect
from .step_decoder import Arrays


class TransducerSteps:
    """A step takes the last piece, the network's state before it, and the embedding; only a piece is committed.

    BLANK leaves piece and state alone: the next embedding is joined with the same text.
    """

    def __init__(self, folder: ModelFolder) -> None:
        self.folder = folder
        self._state: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"decoder": "transducer", "cross_attention_chunks": 0}

    def check(self, inputs: Signature, outputs: Signature, encoder_outputs: Signature) -> None:
        path = self.folder.file("decoder.onnx")
        expect(inputs, "embedding", encoder_outputs["embedding"][0], np.float32, path)
        expect(inputs, "piece", (), np.int64, path)
        self._state = [name for name in inputs if name.startswith("cache.")]
        if not self._state or set(inputs) != {"embedding", "piece", *self._state}:
            raise UserError(f"{path}: not a transducer's inputs: {', '.join(inputs)}; export the model again")
        for name in self._state:
            shape, dtype = inputs[name]
            expect(outputs, f"new_{name}", shape, dtype, path)
        expect(outputs, "log_probs", (self.folder.vocab_size,), np.float32, path)

    def next_chunk(self, inputs: Arrays, chunk: int, encoded: Arrays) -> None:
        inputs["embedding"][:] = encoded["embedding"]

    def commit(self, inputs: Arrays, piece: int | None, outputs: Arrays) -> None:
        if piece is None:
            return
        for name in self._state:
            inputs[name][...] = outputs[f"new_{name}"]
        inputs["piece"][:] = piece
