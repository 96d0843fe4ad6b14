"""Interleave, then de-interleave, is the identity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.training.targets.dynamic_oracle import MAX_OVERDUE_CHUNKS, dynamic_oracle
from speech_reallm.training.targets.interleaving import deinterleave, interleave, place
from speech_reallm.training.targets.labels import end_chunks
from speech_reallm.training.targets.perturbation import perturb

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
def test_the_sequence_is_what_a_decoder_is_fed(utterance):
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


@settings(max_examples=200, deadline=None)
@given(utterances())
def test_on_the_alignment_what_is_due_is_what_comes_next(utterance):
    pieces, ends, chunks, delay, _ = utterance
    made = interleave(pieces, ends, chunks, delay, BLANK, cap=99)
    answers = dynamic_oracle(made, np.arange(len(pieces)), pieces, ends, delay, BLANK)
    assert (
        answers.targets.tolist() == made.targets.tolist()
        and answers.soft_label_mask.tolist() == made.soft_label_mask.tolist()
    )


@settings(max_examples=200, deadline=None)
@given(utterances(), st.integers(0, 9))
def test_off_the_alignment_answers_depend_on_the_furthest_piece_and_the_chunk_alone(utterance, seed):
    pieces, ends, chunks, delay, _ = utterance
    kept, where = perturb(np.array(ends, np.int64), 0.5, np.random.default_rng(seed))
    assert len(where) == len(kept) and (np.diff(where) >= 0).all() and (where >= 0).all()
    made = interleave([pieces[k] for k in kept], where, chunks, delay, BLANK, cap=99)
    written, last, furthest, chunk = 0, -1, -1, -1
    answers = dynamic_oracle(made, kept, pieces, ends, delay, BLANK)
    for i, (piece, embedding) in enumerate(zip(made.pieces, made.chunks, strict=True)):
        chunk = max(chunk, embedding)
        if piece >= 0:
            last, written = kept[written], written + 1
            furthest = max(furthest, last)
        following = furthest + 1
        while following < len(pieces) and ends[following] + delay < chunk - MAX_OVERDUE_CHUNKS:
            following += 1
        furthest = following - 1
        is_due = following < len(pieces) and ends[following] + delay <= chunk
        assert answers.targets[i] == (pieces[following] if is_due else BLANK)
        assert answers.soft_label_mask[i] == (is_due and following == last + 1)


def test_a_perturbed_path_is_late_and_early_and_gives_up_what_is_too_late():
    ends = np.arange(4000) // 2
    kept, where = perturb(ends, 0.1, np.random.default_rng(0))
    first = np.diff(np.maximum.accumulate(kept), prepend=-1) > 0
    late = (where - ends[kept])[first]
    assert late.max() == MAX_OVERDUE_CHUNKS and late.min() == -1
    assert (late > 0).sum() > 400 and (late < 0).sum() > 20
    assert 20 < len(ends) - first.sum() < 1000
    kept, where = perturb(ends, 0.0, np.random.default_rng(0))
    assert (where == ends).all() and len(kept) == len(ends)


def test_a_perturbed_path_repeats_pieces():
    ends = np.arange(4000) // 2
    kept, where = perturb(ends, 0.1, np.random.default_rng(0))
    again = np.diff(np.maximum.accumulate(kept), prepend=-1) == 0
    assert 100 < again.sum() < 800
    # in the order of the line, from a piece that stands shortly before
    begins = np.flatnonzero(np.diff(kept) <= 0) + 1
    assert again[begins].all() and 0 <= (kept[begins - 1] - kept[begins]).max() < 16
    assert (where[begins] - where[begins - 1] <= 1).mean() > 0.9


def test_after_repeated_pieces_the_target_is_what_comes_after_them():
    pieces, ends = [7, 8, 9], [0, 1, 4]
    made = interleave([7, 8, 7, 9], [0, 1, 2, 4], 5, 0, BLANK)
    answers = dynamic_oracle(made, np.array([0, 1, 0, 2]), pieces, ends, 0, BLANK)
    #                                 e0  7      e1 8      e2     7      e3     e4 9
    assert answers.targets.tolist() == [7, BLANK, 8, BLANK, BLANK, BLANK, BLANK, 9, BLANK]
    # what the teacher would predict after 7 is 8, wrong now; it is not asked before 9 either
    assert answers.soft_label_mask.tolist() == [True, False, True] + [False] * 6


def test_a_decoder_that_was_mute_goes_on_with_the_current_chunk():
    pieces, ends = [7, 8, 9], [0, 1, 8]
    # nothing written for six chunks: 7 is given up, then 8
    made = interleave([9], [8], 9, 0, BLANK)
    answers = dynamic_oracle(made, np.array([2]), pieces, ends, 0, BLANK)
    assert answers.targets.tolist() == [7] * 6 + [8, BLANK, 9, BLANK]
    assert answers.soft_label_mask.tolist() == [True] * 6 + [False] * 4
