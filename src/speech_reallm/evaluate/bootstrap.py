"""How sure an error rate is: intervals from utterances drawn with replacement (Bisani and Ney, ICASSP 2004)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 2000
# percent of the draws that lie within an interval
WITHIN = 95.0


def interval(errors: Sequence[int], words: Sequence[int], seed: int = 1) -> tuple[float, float]:
    """The interval of a word error rate, in percent, from the errors and reference words of each utterance.

    Raises ValueError where there is no reference word, or for sequences of different lengths.
    """
    return _interval(np.asarray(errors, np.float64), np.asarray(words, np.float64), seed)


def difference(
    errors: Sequence[int], others: Sequence[int], words: Sequence[int], seed: int = 1
) -> tuple[float, float, float]:
    """`errors` against `others`, of the same utterances: the difference of the rates in points, and its interval.

    Paired: both are counted on the same draws, so that what makes an utterance hard for both cancels out.
    Raises ValueError as interval() does.
    """
    gap, count = (
        np.asarray(errors, np.float64) - np.asarray(others, np.float64),
        np.asarray(words, np.float64),
    )
    low, high = _interval(gap, count, seed)
    return 100 * float(gap.sum() / count.sum()), low, high


def _interval(errors: np.ndarray, words: np.ndarray, seed: int) -> tuple[float, float]:
    if errors.shape != words.shape:
        raise ValueError("errors and words must be of the same utterances")
    if not words.sum():
        raise ValueError("there are no reference words")
    rng = np.random.default_rng(seed)
    # drawn as counts: how often each utterance is taken in each draw
    taken = rng.multinomial(len(words), np.full(len(words), 1 / len(words)), DRAWS)
    # a draw may hold nothing but utterances without words
    rates = 100 * (taken @ errors) / np.maximum(taken @ words, 1)
    low, high = np.percentile(rates, (50 - WITHIN / 2, 50 + WITHIN / 2))
    return float(low), float(high)
