"""Recordings in large blocks: every chunk is in one of them, in order, however the audio came; cuts are where it is
silent.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.engine.blocks import Block, Window
from speech_reallm.modelfolder import FileBlocks

LOOKAHEAD, FLUSH = 1, 6


def blocks_of(audio: np.ndarray, sizes: FileBlocks, cuts: list[int]) -> tuple[list[Block], int]:
    """The blocks of audio [chunks, S] that comes in portions, and the most chunks that waited."""
    window, found, kept = Window(sizes, audio.shape[1], FLUSH), [], 0
    ends = [*sorted(min(c, len(audio)) for c in cuts), len(audio)]
    for number, (start, end) in enumerate(pairwise([0, *ends])):
        window.add(audio[start:end])
        while (block := window.block(number == len(ends) - 1, LOOKAHEAD)) is not None:
            found.append(block)
        kept = max(kept, window.nbytes // (4 * audio.shape[1]))
    return found, kept


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.builds(FileBlocks, st.integers(1, 9), st.integers(0, 4)),
    levels=st.lists(st.sampled_from([0.0, 0.001, 0.1, 1.0]), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_every_chunk_is_in_one_block(sizes: FileBlocks, levels: list[float], cuts: list[int]) -> None:
    audio = np.repeat(np.array(levels, np.float32)[:, None], 4, 1)
    audio += np.arange(len(audio), dtype=np.float32)[:, None] * 1e-6
    found, _ = blocks_of(audio, sizes, cuts)
    whole, _ = blocks_of(audio, sizes, [])
    assert len(found) == len(whole)
    start = 0
    for number, (block, same) in enumerate(zip(found, whole, strict=True)):
        np.testing.assert_array_equal(block.audio, same.audio)
        assert (block.start, block.chunks, block.used) == (same.start, same.chunks, same.used)
        assert block.start == start and 1 <= block.chunks <= sizes.chunks
        before, end = sizes.offset, sizes.offset + block.chunks
        np.testing.assert_array_equal(block.audio[before:end], audio[start : start + block.chunks])
        assert not block.audio[:before].any() and not block.audio[end:].any()
        np.testing.assert_array_equal(block.inside, np.arange(len(block.audio)) >= before)
        # as many embeddings as a stream has that gets the silence, too
        silence = 0 if number == len(found) - 1 else FLUSH
        assert len(block.audio) == end + silence
        assert block.count == max(0, block.chunks + silence - LOOKAHEAD)
        start += block.chunks
    assert start == len(audio)


def test_a_recording_is_cut_where_it_is_silent() -> None:
    audio = np.ones((20, 8), np.float32)
    audio[7] = audio[8] = 0.01
    found, _ = blocks_of(audio, FileBlocks(10, 0), [])
    assert [block.chunks for block in found] == [8, 10, 2]
    # where it is silent in many places, in the last of these
    audio[6:10] = 0
    found, _ = blocks_of(audio, FileBlocks(10, 0), [])
    assert found[0].chunks == 9


def test_memory_is_bounded() -> None:
    _, kept = blocks_of(np.ones((500, 2), np.float32), FileBlocks(9, 1), list(range(0, 500, 2)))
    assert kept <= 9 + 2
