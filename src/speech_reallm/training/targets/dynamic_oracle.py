"""What to predict on a path that has left the alignment (dynamic oracle, Goldberg and Nivre, COLING 2012)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .interleaving import Integers, Interleaved

# a piece that is overdue by more chunks than this is given up, so that it does not hold up what follows
MAX_OVERDUE_CHUNKS = 5


def dynamic_oracle(
    path: Interleaved,
    kept: np.ndarray,
    pieces: Integers,
    end_chunks: Integers,
    delay: int,
    blank: int,
) -> Interleaved:
    """The path with what a path-independent decoder should predict at each of its positions, however it came there.

    path: an interleaving of those of `pieces` whose numbers are in `kept`, which may have them earlier or later than
    they are due, or again. A position's target depends on how far the text has come and the chunk alone: the first
    piece after the furthest one emitted that is due by now and not to be given up, else BLANK.
    """
    when = np.append(np.asarray(end_chunks, np.int64) + delay, np.iinfo(np.int64).max)
    chunk = np.maximum.accumulate(path.chunks)
    emitted = np.cumsum(path.pieces >= 0)
    after = np.append(0, kept + 1)
    # the piece after the furthest one emitted, and the first that is not given up
    following = np.maximum.accumulate(after)[emitted]
    following = np.maximum(following, np.searchsorted(when, chunk - MAX_OVERDUE_CHUNKS))
    is_due = when[following] <= chunk
    targets = np.where(is_due, np.append(np.asarray(pieces, np.int64), blank)[following], blank)
    return replace(path, targets=targets, soft_label_mask=is_due & (after[emitted] == following))
