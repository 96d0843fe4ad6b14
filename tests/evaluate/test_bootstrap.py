"""Intervals of error rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.evaluate.bootstrap import difference, interval


def test_the_interval_is_about_as_wide_as_the_binomial_one() -> None:
    rng = np.random.default_rng(0)
    errors = rng.binomial(1, 0.2, 2000)
    low, high = interval(errors, np.ones(2000, int))
    rate = 100 * errors.mean()
    half = 1.96 * 100 * np.sqrt(0.2 * 0.8 / 2000)
    assert low == pytest.approx(rate - half, abs=0.3)
    assert high == pytest.approx(rate + half, abs=0.3)


def test_pairing_takes_out_what_both_share() -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(5, 30, 300)
    hard = rng.binomial(words, rng.uniform(0, 0.5, 300))
    better = np.maximum(hard - (rng.random(300) < 0.3), 0)
    gap, low, high = difference(better, hard, words)
    assert low < gap < high < 0
    alone = interval(hard, words)
    assert high - low < 0.5 * (alone[1] - alone[0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=20))
def test_the_rate_lies_within(rows: list[tuple[int, int]]) -> None:
    errors, words = zip(*rows, strict=True)
    low, high = interval(errors, words)
    rates = [100 * e / w for e, w in rows]
    assert min(rates) - 1e-9 <= low <= high <= max(rates) + 1e-9
    assert difference(errors, errors, words) == (0, 0, 0)


def test_nothing_to_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="reference words"):
        interval([0], [0])
    with pytest.raises(ValueError, match="same utterances"):
        interval([0, 1], [3])
