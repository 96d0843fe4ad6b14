"""From times to chunks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def end_chunks(ends: Sequence[float], chunk_ms: int, n_chunks: int) -> list[int]:
    """Chunk in which each end time (seconds) lies, in order and within the utterance."""
    result, low = [], 0
    for end in ends:
        # an end at exactly a boundary belongs to the chunk before it
        low = min(max(low, int(np.ceil(round(end * 1000, 3) / chunk_ms)) - 1), n_chunks - 1)
        result.append(low)
    return result
