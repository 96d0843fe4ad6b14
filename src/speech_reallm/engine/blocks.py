"""Recordings in large blocks: what of the audio waits, and the graph that encodes a block (docs/model-folder.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..modelfolder import BLOCK_ENCODER, FileBlocks, ModelFolder
from ..onnx_session import OnnxSession
from .graphs import Signature, expect, signature

# inputs of the graph, which are a file format
AUDIO, INSIDE, DELAY = "audio", "inside", "delay"


@dataclass(frozen=True, slots=True)
class Block:
    """Audio [C, S] with its context; inside [C]: 0 before the start of the recording. `first` to `end` come out.

    used: chunks of the recording up to the block's end.
    """

    audio: np.ndarray
    inside: np.ndarray
    first: int
    end: int
    used: int


class Window:
    """The chunks of a recording that are still needed, of which there is a bounded number.

    Before the recording there are as many as its frames come late, so that the index of a chunk in the stream is that
    of the embedding it gives.
    """

    def __init__(self, blocks: FileBlocks, chunk_samples: int) -> None:
        self._blocks = blocks
        self._outside = blocks.offset
        self._chunks = [np.zeros(chunk_samples, np.float32)] * blocks.offset
        # the first one that has not come out yet
        self._next = 0
        # chunks of the recording that are no longer needed, less those before it
        self._dropped = -blocks.offset

    @property
    def nbytes(self) -> int:
        return sum(chunk.nbytes for chunk in self._chunks)

    def add(self, audio: np.ndarray) -> None:
        """audio: float32 [chunks, S]"""
        # copies: a view would keep all of the caller's audio alive
        self._chunks += [chunk.astype(np.float32) for chunk in audio]

    def block(self, last: bool, lookahead: int) -> Block | None:
        """The next block; None until there is audio enough for a full one, or for as much as the `last` one has.

        lookahead: chunks at the end that give no embedding, as in other streams.
        """
        sizes, first = self._blocks, self._next
        # the frames of the last chunks come too late for an embedding
        late = sizes.offset + lookahead
        end = min(first + sizes.chunks, len(self._chunks) - late)
        full = first + sizes.chunks + max(sizes.right, late)
        if end <= first or (len(self._chunks) < full and not last):
            return None
        chunks = self._chunks[:full]
        inside = (np.arange(len(chunks)) >= self._outside).astype(np.float32)
        block = Block(np.stack(chunks), inside, first, end, self._dropped + len(chunks))
        done = max(0, end - sizes.left)
        del self._chunks[:done]
        self._dropped += done
        self._next = end - done
        self._outside = max(0, self._outside - done)
        return block


class BlockEncoder:
    """Runs `encoder-block.onnx`, whose number of chunks is free. May be called from several threads at once."""

    def __init__(self, folder: ModelFolder, of_a_chunk: Signature) -> None:
        """of_a_chunk: what an encoder of chunks gives for each, which this one gives for many.

        Raises UserError for a graph that does not fit the contract.
        """
        path = folder.file(BLOCK_ENCODER)
        self._session = OnnxSession(path, 1)
        inputs, outputs = signature(self._session, path, free=(AUDIO, INSIDE))
        for name, shape, dtype in (
            (AUDIO, (None,), np.float32),
            (INSIDE, (None,), np.float32),
            (DELAY, (), np.int64),
        ):
            expect(inputs, name, shape, dtype, path)
        if len(inputs) > 3 or list(outputs) != list(of_a_chunk):
            raise UserError(
                f"{path} does not have the inputs and outputs of such an encoder; export it again"
            )
        self._path, self._of_a_chunk = path, of_a_chunk

    def encode(self, block: Block, delay: int) -> Iterator[dict[str, np.ndarray]]:
        """What of each chunk of the block comes out: arrays by name, with their batch dimension of 1, in order.

        Raises UserError for a graph that gives something else.
        """
        feed = {AUDIO: block.audio.reshape(1, -1), INSIDE: block.inside[None], DELAY: np.array([delay])}
        made = self._session.run(None, feed)
        parts = [
            self._by_chunk(name, shape, array, len(block.audio))
            for (name, (shape, _)), array in zip(self._of_a_chunk.items(), made, strict=True)
        ]
        for chunk in range(block.first, block.end):
            yield {name: part[chunk] for name, part in zip(self._of_a_chunk, parts, strict=True)}

    def _by_chunk(
        self, name: str, shape: tuple[int | None, ...], array: np.ndarray, chunks: int
    ) -> list[np.ndarray]:
        """An output for many chunks, cut into those of the single ones, which have this shape."""
        if len(array.shape) == len(shape) + 2:
            # a new dimension for the chunks: of the embeddings
            parts = [part[:, 0] for part in np.split(array, chunks, 1)] if array.shape[1] == chunks else []
        else:
            # a longer one: that of the places in a ring
            longer = [i for i, (a, b) in enumerate(zip(array.shape[1:], shape, strict=False)) if a != b]
            axis = longer[0] + 1 if longer else (1 if chunks == 1 else 0)
            parts = np.split(array, chunks, axis) if axis and array.shape[axis] % chunks == 0 else []
        if not parts or any(b not in (None, a) for a, b in zip(parts[0].shape[1:], shape, strict=True)):
            raise UserError(
                f"{self._path}: {name} is {list(array.shape)} for {chunks} chunks; export the model again"
            )
        return parts
