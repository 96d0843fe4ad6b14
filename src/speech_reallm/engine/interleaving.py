"""The steps of an interleaving decoder: embeddings and pieces are the positions of one sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..modelfolder import ModelFolder
from .graphs import Signature
from .ring import ring_slot
from .step_decoder import Arrays, check_decoder, write_past

# in the place of a piece: the input of this step is the embedding
EMBEDDING = -1


class InterleavingSteps:
    """A step takes a piece or an embedding, and every step is committed."""

    def __init__(self, folder: ModelFolder) -> None:
        self.folder = folder

    def describe(self) -> dict[str, Any]:
        return {"decoder": "interleaving", "cross_attention_chunks": 0}

    def check(self, inputs: Signature, outputs: Signature, encoder_outputs: Signature) -> None:
        check_decoder(self.folder, inputs, outputs, encoder_outputs, count=5)

    def next_chunk(
        self, inputs: Arrays, row: int, chunk: int, embedding: np.ndarray, frames: np.ndarray | None
    ) -> None:
        inputs["embedding"][row] = embedding
        inputs["piece"][row] = EMBEDDING

    def commit(
        self, inputs: Arrays, row: int, piece: int | None, keys: np.ndarray, values: np.ndarray
    ) -> None:
        slot = ring_slot(int(inputs["position"][row]), inputs["cache.k"].shape[2])
        write_past(inputs, row, slot, keys, values)
        if piece is not None:
            inputs["piece"][row] = piece
