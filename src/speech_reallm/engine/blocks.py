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


# at the end of the audio a word that is in doubt gets so many chunks of silence: it is written some chunks later
LATE_CHUNKS = 4
# how far around a boundary of chunks the sound is looked at for a place to cut, in samples; boundaries are alike up to
# this factor
AROUND, ALIKE = 960, 2.0


@dataclass(frozen=True, slots=True)
class Block:
    """Audio [C, S], and inside [C]: 0 before the start of the recording. Its first `count` embeddings are decoded.

    start: the chunk of the recording that it begins with. chunks: how many of them it has. used: how many were needed,
    from the start of the recording, to choose its end.
    """

    audio: np.ndarray
    inside: np.ndarray
    count: int
    start: int
    chunks: int
    used: int


class Window:
    """Audio of a recording that waits, of which there is a bounded amount, and where it is cut into blocks.

    Blocks do not overlap: the frames of an encoder that attends to all of a block tell how far they are from its start,
    and a decoder that goes on from one block to the next takes the second one for the first. So each is decoded like a
    recording of its own, and a recording is cut where it is most silent, in the second half of what a block may have.
    """

    def __init__(self, blocks: FileBlocks, chunk_samples: int, flush: int) -> None:
        """flush: chunks of silence after a block, so that its last words are written."""
        self._blocks, self._flush = blocks, flush
        self._silence = np.zeros(chunk_samples, np.float32)
        self._chunks: list[np.ndarray] = []
        self._start = 0

    @property
    def nbytes(self) -> int:
        return sum(chunk.nbytes for chunk in self._chunks)

    def add(self, audio: np.ndarray) -> None:
        """audio: float32 [chunks, S]"""
        # copies: a view would keep all of the caller's audio alive
        self._chunks += [chunk.astype(np.float32) for chunk in audio]

    def block(self, last: bool, lookahead: int) -> Block | None:
        """The next block; None until there is more audio than it may have, or no more audio comes (`last`).

        lookahead: chunks at the end that give no embedding, as in other streams. The last block has the silence that
        the stream was flushed with.
        """
        most = self._blocks.chunks
        if len(self._chunks) > most:
            count = self._cut()
            chunks = self._chunks[:count] + [self._silence] * self._flush
            used = self._start + most + 1
        elif last and self._chunks:
            count, chunks = len(self._chunks), self._chunks
            used = self._start + count
        else:
            return None
        # the decoder gets the frames of a chunk so many chunks later, as in a stream with this label delay
        before = self._blocks.offset
        audio = np.stack([self._silence] * before + chunks)
        inside = (np.arange(len(audio)) >= before).astype(np.float32)
        block = Block(audio, inside, max(0, len(chunks) - lookahead), self._start, count, used)
        self._chunks = self._chunks[count:]
        self._start += count
        return block

    def _cut(self) -> int:
        """After how many chunks: at the last of the most silent boundaries."""
        most = self._blocks.chunks
        around = min(AROUND, len(self._silence))
        boundaries = range(max(1, most // 2), most + 1)
        powers = [
            float(
                np.square(self._chunks[b - 1][-around:]).mean() + np.square(self._chunks[b][:around]).mean()
            )
            for b in boundaries
        ]
        silent = ALIKE * min(powers) + 1e-9
        return max(b for b, power in zip(boundaries, powers, strict=True) if power <= silent)


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
        """What the decoder gets, one embedding after another: arrays by name, with their batch dimension of 1.

        Raises UserError for a graph that gives something else.
        """
        feed = {AUDIO: block.audio.reshape(1, -1), INSIDE: block.inside[None], DELAY: np.array([delay])}
        made = self._session.run(None, feed)
        parts = [
            self._by_chunk(name, shape, array, len(block.audio))
            for (name, (shape, _)), array in zip(self._of_a_chunk.items(), made, strict=True)
        ]
        for chunk in range(block.count):
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
