"""Interleaving of speech and text, and back. Pure functions on integers; no model.

The decoder reads `e_0 [pieces] e_1 [pieces] ...`. The target at each position is the next symbol, BLANK where the
next input is an embedding, and BLANK at the last position. (Seide et al., Interspeech 2024, section 2.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Interleaved:
    """What the decoder reads and should answer; int64 arrays [T].

    pieces: the piece at each position, -1 where the input is an embedding.
    chunks: the embedding's number at each position, -1 where the input is a piece.
    targets: the symbol to predict.
    """

    pieces: np.ndarray
    chunks: np.ndarray
    targets: np.ndarray


def place(end_chunks: Sequence[int], n_chunks: int, delay: int, cap: int) -> list[int]:
    """The embedding after which each piece is placed.

    end_chunks [U]: the chunk in which each piece's audio ends. Placement is at end + delay, in order, at most `cap`
    pieces after one embedding: what is too many moves on. There are n_chunks + delay embeddings. Raises ValueError when
    the pieces do not fit.
    """
    placed: list[int] = []
    current, used = 0, 0
    last = n_chunks + delay - 1
    if len(end_chunks) > cap * (last + 1):
        raise ValueError(f"{len(end_chunks)} pieces do not fit into {last + 1} chunks of at most {cap}")
    for number, end in enumerate(end_chunks):
        # never so late that the remaining ones would not fit
        latest = last - (len(end_chunks) - 1 - number) // cap
        wanted = min(max(int(end), 0) + delay, latest)
        if wanted > current:
            current, used = wanted, 0
        elif used == cap:
            current, used = current + 1, 0
        placed.append(current)
        used += 1
    return placed


def interleave(
    pieces: Sequence[int], end_chunks: Sequence[int], n_chunks: int, delay: int, blank: int, cap: int = 16
) -> Interleaved:
    """From pieces [U] and the chunks in which they end to the decoder's sequence of n_chunks + delay + U positions."""
    where = np.asarray(place(end_chunks, n_chunks, delay, cap), dtype=np.int64)
    embeddings = n_chunks + delay
    # a piece stands behind its embedding and all embeddings and pieces before
    position = where + 1 + np.arange(len(where))
    length = embeddings + len(where)
    tokens = np.full(length, -1, np.int64)
    tokens[position] = np.asarray(pieces, dtype=np.int64)
    chunks = np.full(length, -1, np.int64)
    chunks[tokens < 0] = np.arange(embeddings)
    targets = np.full(length, blank, np.int64)
    targets[:-1] = np.where(tokens[1:] >= 0, tokens[1:], blank)
    return Interleaved(pieces=tokens, chunks=chunks, targets=targets)


def due(
    path: Interleaved, pieces: Sequence[int], end_chunks: Sequence[int], delay: int, blank: int
) -> np.ndarray:
    """What a reading decoder should answer at each position of a path, however it came there: int64 [T].

    path: an interleaving of `pieces` that may write them earlier or later than they are due. A position's answer
    depends on how many pieces are written and which chunk it is alone: the next piece if it is due by now, else BLANK.
    """
    written = np.cumsum(path.pieces >= 0)
    chunk = np.maximum.accumulate(path.chunks)
    when = np.append(np.asarray(end_chunks, np.int64) + delay, np.iinfo(np.int64).max)
    return np.where(when[written] <= chunk, np.append(np.asarray(pieces, np.int64), blank)[written], blank)


# how far a path strays: probabilities of being 1, 2, 3, 4 chunks late, and of a single chunk early
_LATE, _EARLY = (0.4, 0.25, 0.2, 0.15), 0.3
# pieces that it stays late for, at most
_LONGEST = 6


def strayed(end_chunks: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Where a path that strays now and then would place pieces that end in these chunks: int64 [U], in order.

    Each piece begins a stretch of lateness, or is early, with probability `share`; what comes after a late piece
    waits for it.
    """
    shift = np.zeros(len(end_chunks), np.int64)
    for start in np.flatnonzero(rng.random(len(end_chunks)) < share):
        if rng.random() < _EARLY:
            shift[start] = -1
        else:
            shift[start : start + rng.integers(1, _LONGEST + 1)] = 1 + rng.choice(len(_LATE), p=_LATE)
    return np.maximum.accumulate(np.maximum(end_chunks + shift, 0))


def deinterleave(targets: Sequence[int], blank: int) -> tuple[list[int], list[int]]:
    """From a sequence of answers to (pieces, the embedding after which each was said): each BLANK moves on by one."""
    pieces, where, chunk = [], [], 0
    for symbol in targets:
        if symbol == blank:
            chunk += 1
        else:
            pieces.append(int(symbol))
            where.append(chunk)
    return pieces, where


def end_chunks(ends: Sequence[float], chunk_ms: int, n_chunks: int) -> list[int]:
    """Chunk in which each end time (seconds) lies, in order and within the utterance."""
    result, low = [], 0
    for end in ends:
        # an end at exactly a boundary belongs to the chunk before it
        low = min(max(low, int(np.ceil(round(end * 1000, 3) / chunk_ms)) - 1), n_chunks - 1)
        result.append(low)
    return result


def frame_targets(
    pieces: Sequence[int], ends: Sequence[float], frame_seconds: float, n_frames: int, blank: int, span: int
) -> np.ndarray:
    """What is being said in each frame: int64 [n_frames].

    A piece is said in the frames up to its end (seconds), from the end of the one before, but not longer than `span`
    frames; whatever lies between is blank.
    """
    targets = np.full(n_frames, blank, np.int64)
    before = 0
    for piece, end in zip(pieces, ends, strict=True):
        last = min(max(round(end / frame_seconds), before), n_frames)
        targets[max(before, last - span) : last] = piece
        before = last
    return targets
