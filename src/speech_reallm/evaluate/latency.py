"""Emission delay: how long after a word was spoken it is on the screen.

Delay of a word = when its last letter was shown - when its audio ended. "When it was shown" is a time on the
clock of someone who speaks live: audio arrives as fast as it is spoken, a feed is worked on once it has
arrived and the feed before it is done, and its words show when the work is done. So look-ahead, label delay,
the wait for the feed to fill, computing time and, for a system slower than speech, its growing backlog all
count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .wer import Normalizer, edit_alignment


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word of the reference with the seconds at which it starts and ends."""

    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class ShownWord:
    """A word of the hypothesis and the second, on the clock of a live speaker, at which it was shown."""

    word: str
    shown: float


def live_clock(fed: Sequence[float], compute: Sequence[float]) -> list[float]:
    """When each feed was done with. `fed`: seconds of audio after each feed; `compute`: seconds it took."""
    done, now = [], 0.0
    for arrived, seconds in zip(fed, compute, strict=True):
        now = max(now, arrived) + seconds
        done.append(now)
    return done


def emission_delays(
    reference: Sequence[TimedWord], hypothesis: Sequence[ShownWord], normalize: Normalizer
) -> list[float]:
    """Delays in ms of the hypothesis words that are right, in order; negative for a word shown early."""
    ref = [(part, word) for word in reference for part in normalize(word.word).split()]
    hyp = [(part, word) for word in hypothesis for part in normalize(word.word).split()]
    alignment = edit_alignment([part for part, _ in ref], [part for part, _ in hyp])
    return [1000.0 * (hyp[h][1].shown - ref[r][1].end) for r, h in alignment.correct]


def percentile(values: Sequence[float], q: float) -> float | None:
    """The q-th percentile (0..100), linearly interpolated; None of no values."""
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100.0
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def percentiles(values: Sequence[float], *qs: int) -> dict[str, float | None]:
    """Percentiles by name: `{"p50": ..., "p90": ...}`; each None of no values."""
    return {f"p{q}": percentile(values, q) for q in qs}
