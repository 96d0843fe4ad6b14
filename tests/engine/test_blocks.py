"""Recordings in large blocks: every chunk comes out once, in order, with its context, however the audio came."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.engine.blocks import Block, Window
from speech_reallm.modelfolder import FileBlocks

LOOKAHEAD = 1


def blocks_of(sizes: FileBlocks, count: int, cuts: list[int]) -> tuple[list[Block], int]:
    """The blocks of `count` chunks that come in portions, chunk n being full of n + 1; the most chunks kept."""
    audio = np.repeat(np.arange(1, count + 1, dtype=np.float32)[:, None], 2, 1)
    window, found, kept = Window(sizes, 2), [], 0
    ends = [*sorted(min(c, count) for c in cuts), count]
    for number, (start, end) in enumerate(pairwise([0, *ends])):
        window.add(audio[start:end])
        while (block := window.block(number == len(ends) - 1, LOOKAHEAD)) is not None:
            found.append(block)
        kept = max(kept, window.nbytes // 8)
    return found, kept


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.builds(FileBlocks, *(st.integers(low, 6) for low in (1, 0, 0, 0))),
    count=st.integers(0, 60),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_every_chunk_comes_out_once_with_its_context(sizes: FileBlocks, count: int, cuts: list[int]) -> None:
    found, _ = blocks_of(sizes, count, cuts)
    whole, _ = blocks_of(sizes, count, [])
    assert len(found) == len(whole)
    out = []
    for block, same in zip(found, whole, strict=True):
        np.testing.assert_array_equal(block.audio, same.audio)
        assert (block.first, block.end, block.used) == (same.first, same.end, same.used)
        # audio where there is any, nothing before it
        np.testing.assert_array_equal(block.inside > 0, block.audio[:, 0] > 0)
        assert block.first <= sizes.left + sizes.offset and block.used == block.audio[-1, 0]
        out += block.audio[block.first : block.end, 0].astype(int).tolist()
        # full context, but at the end of the recording
        after = len(block.audio) - block.end
        assert after >= sizes.right or block.used == count
    # as many embeddings as of a stream, whose first ones have no frames yet
    expected = [0] * sizes.offset + list(range(1, count + 1))
    assert out == expected[: max(0, count - LOOKAHEAD)]


def test_memory_is_bounded() -> None:
    sizes = FileBlocks(4, 3, 2, 1)
    _, kept = blocks_of(sizes, 500, list(range(0, 500, 2)))
    assert kept <= 3 + 4 + 2 + 2 + 1
