"""The steps of a cross-attending decoder: text alone is its past, and it attends to the encoder's frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UserError
from ..modelfolder import ModelFolder
from .graphs import Ring, Signature, expect, ring
from .ring import sink_ring_slot
from .step_decoder import Arrays, Past, check_decoder

# names of the graph's inputs, which are a file format
CHUNK, CHUNKS_SINCE_PIECE = "chunk", "waited"
# in folders of format 2 the frames themselves, else the keys and values that each layer makes of them
FRAMES, KEYS_AND_VALUES = "frames", "cross."


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
        self._past: Past
        self._frames: dict[str, Ring] = {}

    def describe(self) -> dict[str, Any]:
        return {"decoder": "cross-attending", "cross_attention_chunks": self.chunks}

    def check(self, inputs: Signature, outputs: Signature, encoder_outputs: Signature) -> None:
        path = self.folder.file("decoder.onnx")
        for name in (CHUNK, CHUNKS_SINCE_PIECE):
            expect(inputs, name, (), np.int64, path)
        self._frames = {
            name: self._ring(name, inputs, encoder_outputs)
            for name in inputs
            if name == FRAMES or name.startswith(KEYS_AND_VALUES)
        }
        if not self._frames:
            raise UserError(f"{path} has no {FRAMES}; export the model again")
        others = (CHUNK, CHUNKS_SINCE_PIECE, *self._frames)
        self._past = check_decoder(self.folder, inputs, outputs, encoder_outputs, others)

    def _ring(self, name: str, inputs: Signature, encoder_outputs: Signature) -> Ring:
        """The ring of the last chunks' frames, or of a layer's keys or values of these. Raises UserError."""
        path, encoder = self.folder.file("decoder.onnx"), self.folder.file("encoder.onnx")
        if name == FRAMES:
            size, width = expect(inputs, FRAMES, (None, None), np.float32, path)
            frames_per_chunk, rest = divmod(size, self.chunks)
            if rest or not frames_per_chunk:
                raise UserError(
                    f"{path}: frames holds {size}, which {self.chunks} chunks (config.json) cannot "
                    "share evenly; export the model again"
                )
            expect(encoder_outputs, FRAMES, (frames_per_chunk, width), np.float32, encoder)
            return Ring(1, frames_per_chunk, self.chunks)
        made = ring(inputs, name, encoder_outputs, name, encoder)
        if made.slots != self.chunks:
            raise UserError(
                f"{path}: {name} is {list(inputs[name][0])}, which does not hold the {self.chunks} chunks that "
                "config.json asks for; export the model again"
            )
        return made

    def next_chunk(self, inputs: Arrays, chunk: int, encoded: Arrays) -> None:
        inputs["embedding"][:] = encoded["embedding"]
        inputs[CHUNK][:] = chunk
        inputs[CHUNKS_SINCE_PIECE] += 1
        for name, place in self._frames.items():
            place.write(inputs[name], encoded[name], chunk % self.chunks)

    def commit(self, inputs: Arrays, piece: int | None, outputs: Arrays) -> None:
        if piece is None:
            return
        slot = sink_ring_slot(int(inputs["position"][0]), self._past.steps)
        self._past.write(inputs, slot, outputs)
        inputs["piece"][:] = piece
        inputs[CHUNKS_SINCE_PIECE][:] = 0
