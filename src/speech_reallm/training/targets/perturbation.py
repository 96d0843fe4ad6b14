"""Perturbation of an alignment, so that a decoder is trained to find its way back (exposure bias)."""

from __future__ import annotations

import numpy as np

from .dynamic_oracle import MAX_OVERDUE_CHUNKS

# how a path leaves the alignment: a chunk early, or late by one chunk and, each time as likely as here, one more
_EARLY, _MORE, _LATEST = 0.3, 0.65, 12
# pieces that it stays late for, at most
_LONGEST = 6
# how often, against the other ways, it emits pieces again, from about so many pieces back, from so many at
# most; between the pieces there is now and then a chunk
_AGAIN, _BACK, _FURTHEST, _PAUSE = 0.25, 5, 16, 0.3


def perturb(end_chunks: np.ndarray, prob: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A path that now and then leaves the alignment of pieces that end in these chunks: what it emits, and where.

    Each piece begins a stretch of lateness, or is early, with probability `prob`; what comes after a late piece
    waits for it. Less often some of the pieces before are emitted again, all of them or the first few. A path that is
    so late that pieces are given up goes on behind them. Returns the numbers of the pieces emitted and the chunks in
    which they then seem to end, both int64 [K].
    """
    count = len(end_chunks)
    offset = np.zeros(count, np.int64)
    for start in np.flatnonzero(rng.random(count) < prob):
        if rng.random() < _EARLY:
            offset[start] = -1
        else:
            offset[start : start + rng.integers(1, _LONGEST + 1)] = min(rng.geometric(1 - _MORE), _LATEST)
    numbers, where, again = np.arange(count), np.maximum(end_chunks + offset, 0), np.zeros(count, bool)
    # from the end, so that places before stay what they are
    for last in np.flatnonzero(rng.random(count) < prob * _AGAIN)[::-1]:
        first = max(last + 1 - min(rng.geometric(1 / _BACK), _FURTHEST), 0)
        stretch = np.arange(first, rng.integers(first, last + 1) + 1)
        numbers = np.insert(numbers, last + 1, stretch)
        where = np.insert(where, last + 1, where[last] + np.cumsum(rng.random(len(stretch)) < _PAUSE))
        again = np.insert(again, last + 1, np.ones(len(stretch), bool))
    where = np.maximum.accumulate(where)
    given_up = ~again & (where - end_chunks[numbers] > MAX_OVERDUE_CHUNKS)
    kept = ~np.isin(numbers, numbers[given_up])
    return numbers[kept], where[kept]
