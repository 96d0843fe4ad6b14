"""Which utterances make the batches of an epoch: bucketed by duration, the same for the same seed and epoch.

The list of an epoch's batches depends on the manifests, the seed and the epoch alone. A run that resumes skips the
batches it has had; with several processes each takes every n-th example of a batch, so that the global batch is the
same whatever their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from lhotse import SupervisionSegment
from lhotse.cut import Cut

from ...errors import UserError
from ..config import DataConfig
from .manifests import load_manifest

# of the utterances joined to another: the share of those without words, where there are such, and of anyone's
NON_SPEECH_SHARE = 0.2
ANY_SPEAKER_SHARE = 0.65

# batches of an epoch: a batch is a list of examples, an example the numbers of the utterances that are joined
Plan = list[list[tuple[int, ...]]]


def load_cuts(config: DataConfig) -> tuple[list[Cut], list[float]]:
    """The training cuts within the configured durations, and how often an epoch takes each (weight)."""
    weights = config.weights or (1.0,) * len(config.train)
    if len(weights) != len(config.train):
        raise UserError("data.weights: one number for each of data.train")
    cuts, repeats = [], []
    for path, weight in zip(config.train, weights, strict=True):
        found = [c for c in load_manifest(path) if config.min_seconds <= c.duration <= config.max_seconds]
        if not found:
            raise UserError(f"{path}: no utterance of {config.min_seconds} to {config.max_seconds} s")
        cuts += found
        counts = Counter(str(c.supervisions[0].speaker) for c in found)
        share = [counts[str(c.supervisions[0].speaker)] ** -config.speaker_balance for c in found]
        repeats += [weight * s * len(found) / sum(share) for s in share]
    return cuts, repeats


def epoch_order(repeats: Sequence[float], seed: int, epoch: int) -> np.ndarray:
    """Utterance numbers of an epoch, shuffled; a weight of 2.5 is two times and, for a random half, three."""
    rng = np.random.default_rng((seed, epoch))
    weights = np.asarray(repeats)
    counts = np.floor(weights).astype(int) + (rng.random(len(weights)) < weights % 1)
    return rng.permutation(np.repeat(np.arange(len(weights)), counts))


def bucket(durations: Sequence[float], batch_seconds: float, seed: int, epoch: int) -> list[list[int]]:
    """Batches of example numbers whose padded size (longest times count) stays within batch_seconds."""
    rng = np.random.default_rng((seed, epoch, 1))
    # neighbours in length share a batch; a little noise in the key mixes the batches between epochs
    order = np.argsort(np.asarray(durations) * rng.uniform(0.9, 1.1, len(durations)), kind="stable")
    batches: list[list[int]] = [[]]
    longest = 0.0
    for index in order:
        longest = max(longest, durations[index])
        if batches[-1] and longest * (len(batches[-1]) + 1) > batch_seconds:
            batches.append([])
            longest = durations[index]
        batches[-1].append(int(index))
    return [batches[i] for i in rng.permutation(len(batches)) if batches[i]]


def plan_epoch(
    utterances: Sequence[tuple[SupervisionSegment, float]],
    repeats: Sequence[float],
    config: DataConfig,
    seed: int,
    epoch: int,
) -> list[list[tuple[int, ...]]]:
    """Batches of examples: an example is one utterance or several, joined, as numbers of `utterances`.

    utterances: the supervision of each and its duration in seconds. repeats: how often an epoch takes each.
    """
    rng = np.random.default_rng((seed, epoch, 2))
    order = epoch_order(repeats, seed, epoch)
    mates: dict[str, list[int]] = {}
    for i, (supervision, _) in enumerate(utterances):
        mates.setdefault(str(supervision.speaker), []).append(i)
    non_speech = [i for i, (supervision, _) in enumerate(utterances) if not supervision.text]

    def mate(of: int) -> int:
        pool: Sequence[int] | np.ndarray = mates[str(utterances[of][0].speaker)]
        draw = rng.random()
        if non_speech and draw < NON_SPEECH_SHARE:
            pool = non_speech
        elif draw > 1 - ANY_SPEAKER_SHARE or len(pool) == 1:
            # a speaker with a single utterance does not repeat it again and again
            pool = order
        return int(pool[int(rng.integers(len(pool)))])

    examples, durations = [], []
    for first in map(int, order):
        chosen, total = [first], utterances[first][1]
        if rng.random() < config.concatenate_prob:
            while (longer := total + utterances[another := mate(first)][1]) <= config.max_seconds:
                chosen.append(another)
                total = longer
            rng.shuffle(chosen)
        examples.append(tuple(chosen))
        durations.append(total)
    return [[examples[i] for i in batch] for batch in bucket(durations, config.batch_seconds, seed, epoch)]


def example_rng(seed: int, epoch: int, batch: int, row: int) -> np.random.Generator:
    """The generator for what is random about one example, by its place in the plan of an epoch.

    Not by its utterance: one that an epoch takes several times is to be a different waveform each time.
    """
    return np.random.default_rng((seed, epoch, batch, row, 0xA0D10))


class PlanCache:
    """The plan of the epoch asked for last: a source asks for it once for every batch."""

    def __init__(self, make: Callable[[int], list]):
        self._make = make
        self._last: tuple[int, list] | None = None

    def __call__(self, epoch: int) -> list:
        last = self._last
        if last is None or last[0] != epoch:
            last = self._last = (epoch, self._make(epoch))
        return last[1]
