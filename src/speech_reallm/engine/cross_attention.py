"""The steps of a cross-attending decoder: text alone is its past, and it attends to the encoder's frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UserError
from ..modelfolder import ModelFolder
from .graphs import Signature, expect
from .ring import sink_ring_slot
from .step_decoder import Arrays, check_decoder, write_past

# names of the graph's inputs, which are a file format
CHUNK, CHUNKS_SINCE_PIECE, FRAMES = "chunk", "waited", "frames"


class CrossAttentionSteps:
    """A step takes the last piece, the current embedding and the frames; only one that emitted a piece is committed.

    BLANK leaves the past alone: the next embedding adds one to the count of chunks since the last piece.
    """

    def __init__(self, folder: ModelFolder) -> None:
        """Raises UserError for a window without room for an attention sink and one piece."""
        if folder.window < 3:
            raise UserError(f"{folder.file('config.json')}: window must be a whole number from 3 on")
        self.folder = folder
        self.chunks = folder.cross_attention_chunks

    def describe(self) -> dict[str, Any]:
        return {"decoder": "cross-attending", "cross_attention_chunks": self.chunks}

    def check(self, inputs: Signature, outputs: Signature, encoder_outputs: Signature) -> None:
        path = self.folder.file("decoder.onnx")
        for name in (CHUNK, CHUNKS_SINCE_PIECE):
            expect(inputs, name, (), np.int64, path)
        size, width = expect(inputs, FRAMES, (None, None), np.float32, path)
        frames_per_chunk, rest = divmod(size, self.chunks)
        if rest or not frames_per_chunk:
            raise UserError(
                f"{path}: frames holds {size}, which {self.chunks} chunks (config.json) cannot "
                "share evenly; export the model again"
            )
        expect(
            encoder_outputs, FRAMES, (frames_per_chunk, width), np.float32, self.folder.file("encoder.onnx")
        )
        check_decoder(self.folder, inputs, outputs, encoder_outputs, count=8)

    def next_chunk(
        self, inputs: Arrays, row: int, chunk: int, embedding: np.ndarray, frames: np.ndarray | None
    ) -> None:
        assert frames is not None  # check() has seen to it
        inputs["embedding"][row] = embedding
        inputs[CHUNK][row] = chunk
        inputs[CHUNKS_SINCE_PIECE][row] += 1
        first = chunk % self.chunks * len(frames)
        inputs[FRAMES][row, first : first + len(frames)] = frames

    def commit(
        self, inputs: Arrays, row: int, piece: int | None, keys: np.ndarray, values: np.ndarray
    ) -> None:
        if piece is None:
            return
        slot = sink_ring_slot(int(inputs["position"][row]), inputs["cache.k"].shape[2])
        write_past(inputs, row, slot, keys, values)
        inputs["piece"][row] = piece
        inputs[CHUNKS_SINCE_PIECE][row] = 0
