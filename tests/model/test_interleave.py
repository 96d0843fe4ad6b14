"""Interleave, then de-interleave, is the identity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.model.interleave import (
    deinterleave,
    due,
    end_chunks,
    frame_targets,
    interleave,
    place,
    strayed,
)

BLANK = 3


@st.composite
def utterances(draw):
    chunks = draw(st.integers(1, 12))
    cap = draw(st.integers(1, 5))
    delay = draw(st.integers(0, 3))
    count = draw(st.integers(0, min(20, cap * (chunks + delay))))
    pieces = draw(st.lists(st.integers(4, 50), min_size=count, max_size=count))
    ends = sorted(draw(st.lists(st.integers(0, chunks - 1), min_size=count, max_size=count)))
    return pieces, ends, chunks, delay, cap


@settings(max_examples=300, deadline=None)
@given(utterances())
def test_interleave_then_deinterleave_is_the_identity(utterance):
    pieces, ends, chunks, delay, cap = utterance
    made = interleave(pieces, ends, chunks, delay, BLANK, cap)
    back, where = deinterleave(made.targets, BLANK)
    assert back == pieces
    assert where == place(ends, chunks, delay, cap)


@settings(max_examples=300, deadline=None)
@given(utterances())
def test_the_sequence_is_what_a_decoder_would_read(utterance):
    pieces, ends, chunks, delay, cap = utterance
    made = interleave(pieces, ends, chunks, delay, BLANK, cap)
    # every position is either an embedding or a piece; embeddings come in order, all of them
    assert ((made.pieces >= 0) ^ (made.chunks >= 0)).all()
    assert made.chunks[made.chunks >= 0].tolist() == list(range(chunks + delay))
    assert made.pieces[made.pieces >= 0].tolist() == pieces
    # BLANK is predicted just where an embedding comes next, and at the end; it is never fed
    following = np.append(made.pieces[1:], -1)
    assert (made.targets == np.where(following >= 0, following, BLANK)).all()
    where = place(ends, chunks, delay, cap)
    assert max((where.count(c) for c in where), default=0) <= cap
    assert where == sorted(where)


def test_a_piece_comes_after_the_chunk_of_its_end_plus_the_delay():
    made = interleave([10, 11, 12], [0, 0, 2], 3, 1, BLANK)
    #                  e0     e1      10  11     e2     e3      12
    assert made.pieces.tolist() == [-1, -1, 10, 11, -1, -1, 12]
    assert made.chunks.tolist() == [0, 1, -1, -1, 2, 3, -1]
    assert made.targets.tolist() == [3, 10, 11, 3, 3, 12, 3]


def test_pieces_beyond_the_cap_move_on_and_none_is_lost():
    assert place([0, 0, 0, 0, 0], 3, 0, 2) == [0, 0, 1, 1, 2]
    assert place([2, 2, 2], 3, 0, 2) == [1, 2, 2]
    with pytest.raises(ValueError, match="do not fit"):
        place([0] * 7, 3, 0, 2)


def test_end_times_to_chunks():
    assert end_chunks([0.0, 0.1, 0.24, 0.2401, 0.72, 9.0], 240, 3) == [0, 0, 0, 1, 2, 2]
    # an end before the one before it is put right
    assert end_chunks([0.5, 0.3], 240, 3) == [2, 2]


def test_a_piece_is_said_in_the_frames_up_to_its_end():
    said = frame_targets([7, 8, 9], [0.3, 0.4, 0.99], 0.1, 10, BLANK, span=2)
    # 7 for no longer than its span; 8 since 7; 9, after a pause
    assert said.tolist() == [3, 7, 7, 8, 3, 3, 3, 3, 9, 9]


@given(st.lists(st.floats(0, 3), max_size=12), st.integers(1, 20), st.integers(1, 5))
def test_frame_targets_of_any_ends_are_in_order_and_within(ends, frames, span):
    pieces = list(range(10, 10 + len(ends)))
    said = frame_targets(pieces, sorted(ends), 0.1, frames, BLANK, span)
    assert len(said) == frames
    named = said[said != BLANK]
    assert (np.diff(named) >= 0).all() and set(named.tolist()) <= set(pieces)
    assert all((said == piece).sum() <= span for piece in pieces)


@settings(max_examples=200, deadline=None)
@given(utterances())
def test_on_the_alignment_what_is_due_is_what_comes_next(utterance):
    pieces, ends, chunks, delay, _ = utterance
    made = interleave(pieces, ends, chunks, delay, BLANK, cap=99)
    assert due(made, pieces, ends, delay, BLANK).tolist() == made.targets.tolist()


@settings(max_examples=200, deadline=None)
@given(utterances(), st.integers(0, 9))
def test_off_the_alignment_answers_depend_on_what_is_written_and_heard_alone(utterance, seed):
    pieces, ends, chunks, delay, _ = utterance
    path = strayed(np.array(ends, np.int64), 0.5, np.random.default_rng(seed))
    assert len(path) == len(ends) and (np.diff(path) >= 0).all() and (path >= 0).all()
    made = interleave(pieces, path, chunks, delay, BLANK, cap=99)
    written, chunk = 0, -1
    for piece, embedding, answer in zip(
        made.pieces, made.chunks, due(made, pieces, ends, delay, BLANK), strict=True
    ):
        written, chunk = written + (piece >= 0), max(chunk, embedding)
        is_due = written < len(pieces) and ends[written] + delay <= chunk
        assert answer == (pieces[written] if is_due else BLANK)


def test_a_path_strays_late_and_early():
    ends = np.arange(400)
    path = strayed(ends, 0.1, np.random.default_rng(0))
    assert (path > ends).sum() > 40 and (path < ends).sum() > 5
    assert (path - ends).max() == 4 and (path - ends).min() == -1
    assert (strayed(ends, 0.0, np.random.default_rng(0)) == ends).all()
