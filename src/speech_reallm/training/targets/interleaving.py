"""Interleaving of speech and text, and back. Pure functions on integers; no model.

The decoder reads `e_0 [pieces] e_1 [pieces] ...`. The target at each position is the next symbol, BLANK where the
next input is an embedding, and BLANK at the last position. (Seide et al., Interspeech 2024, section 2.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Interleaved:
    """What the decoder reads and should answer; int64 arrays [T].

    pieces: the piece at each position, -1 where the input is an embedding.
    chunks: the embedding's number at each position, -1 where the input is a piece.
    targets: the symbol to predict.
    follows: where the target is the piece after the one last written, bool [T].
    """

    pieces: np.ndarray
    chunks: np.ndarray
    targets: np.ndarray
    follows: np.ndarray


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
    return Interleaved(pieces=tokens, chunks=chunks, targets=targets, follows=targets != blank)


# a piece that is overdue by more chunks than this is given up: what was not made out must not hold up what follows
PATIENCE = 5


def due(
    path: Interleaved,
    kept: np.ndarray,
    pieces: Sequence[int],
    end_chunks: Sequence[int],
    delay: int,
    blank: int,
) -> Interleaved:
    """The path with what a reading decoder should answer at each of its positions, however it came there.

    path: an interleaving of those of `pieces` whose numbers are in `kept`, which may write them earlier or later than
    they are due, or again. A position's answer depends on how far the text has come and the chunk alone: the first
    piece after the furthest one written that is due by now and not to be given up, else BLANK.
    """
    when = np.append(np.asarray(end_chunks, np.int64) + delay, np.iinfo(np.int64).max)
    chunk = np.maximum.accumulate(path.chunks)
    written = np.cumsum(path.pieces >= 0)
    after = np.append(0, kept + 1)
    # the piece after the furthest one written, and the first that is not given up
    following = np.maximum.accumulate(after)[written]
    following = np.maximum(following, np.searchsorted(when, chunk - PATIENCE))
    is_due = when[following] <= chunk
    targets = np.where(is_due, np.append(np.asarray(pieces, np.int64), blank)[following], blank)
    return replace(path, targets=targets, follows=is_due & (after[written] == following))


# how a path strays where it does: a chunk early, or late by one chunk and, each time as likely as here, one more
_EARLY, _MORE, _LATEST = 0.3, 0.65, 12
# pieces that it stays late for, at most
_LONGEST = 6
# how often, against the other ways, it reads what it has written again, from about so many pieces back, from so many at
# most; between the pieces there is now and then a chunk
_AGAIN, _BACK, _FURTHEST, _PAUSE = 0.25, 5, 16, 0.3


def strayed(end_chunks: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A path that strays now and then from pieces that end in these chunks, in order: what it writes, and where.

    Each piece begins a stretch of lateness, or is early, with probability `share`; what comes after a late piece
    waits for it. Less often some of the pieces before are written again, all of them or the first few. A path that is
    so late that pieces are given up goes on behind them. Returns the numbers of the pieces written and the chunks in
    which they then seem to end, both int64 [K].
    """
    count = len(end_chunks)
    shift = np.zeros(count, np.int64)
    for start in np.flatnonzero(rng.random(count) < share):
        if rng.random() < _EARLY:
            shift[start] = -1
        else:
            shift[start : start + rng.integers(1, _LONGEST + 1)] = min(rng.geometric(1 - _MORE), _LATEST)
    numbers, where, again = np.arange(count), np.maximum(end_chunks + shift, 0), np.zeros(count, bool)
    # from the end, so that places before stay what they are
    for last in np.flatnonzero(rng.random(count) < share * _AGAIN)[::-1]:
        first = max(last + 1 - min(rng.geometric(1 / _BACK), _FURTHEST), 0)
        stretch = np.arange(first, rng.integers(first, last + 1) + 1)
        numbers = np.insert(numbers, last + 1, stretch)
        where = np.insert(where, last + 1, where[last] + np.cumsum(rng.random(len(stretch)) < _PAUSE))
        again = np.insert(again, last + 1, np.ones(len(stretch), bool))
    where = np.maximum.accumulate(where)
    given_up = ~again & (where - end_chunks[numbers] > PATIENCE)
    kept = ~np.isin(numbers, numbers[given_up])
    return numbers[kept], where[kept]


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
