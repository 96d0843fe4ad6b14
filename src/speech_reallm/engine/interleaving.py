"""The steps of an interleaving decoder: embeddings and pieces are the positions of one sequence."""

from __future__ import annotations

from typing import Any

from ..modelfolder import ModelFolder
from .graphs import Signature
from .ring import ring_slot
from .step_decoder import Arrays, Past, check_decoder

# in the place of a piece: the input of this step is the embedding
EMBEDDING = -1


class InterleavingSteps:
    """A step takes a piece or an embedding, and every step is committed."""

    def __init__(self, folder: ModelFolder) -> None:
        self.folder = folder
        self._past: Past

    def describe(self) -> dict[str, Any]:
        return {"decoder": "interleaving", "cross_attention_chunks": 0}

    def check(self, inputs: Signature, outputs: Signature, encoder_outputs: Signature) -> None:
        self._past = check_decoder(self.folder, inputs, outputs, encoder_outputs, ())

    def next_chunk(self, inputs: Arrays, chunk: int, encoded: Arrays) -> None:
        inputs["embedding"][:] = encoded["embedding"]
        inputs["piece"][:] = EMBEDDING

    def commit(self, inputs: Arrays, piece: int | None, outputs: Arrays) -> None:
        self._past.write(inputs, ring_slot(int(inputs["position"][0]), self._past.steps), outputs)
        if piece is not None:
            inputs["piece"][:] = piece
