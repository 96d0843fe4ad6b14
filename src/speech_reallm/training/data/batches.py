"""From cuts to batches: bucketed by duration, the same on every machine for the same seed and epoch.

The list of an epoch's batches depends on the manifests, the seed and the epoch alone. A run that resumes skips the
batches it has had; with several processes each takes every n-th utterance of a batch, so that the global
batch is the same whatever their number.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from lhotse import SupervisionSegment
from lhotse.cut import Cut
from torch import Tensor

from ...errors import UserError
from ..config import SAMPLE_RATE, DataConfig
from .augment import Augmenter
from .manifests import load_audio, load_manifest

# of the utterances joined to another: the share of those without words, where there are such, and of anyone's
WORDLESS = 0.2
ANYONE = 0.65


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioBatch:
    """Utterances in memory: audio [B, N] float32 (zeros beyond lengths [B], in samples), and their cuts.

    `clean` [B, N] is the same without noise and reverberation. `delay`: of the streams, in chunks.
    """

    audio: Tensor
    clean: Tensor
    lengths: Tensor
    cuts: list[list[Cut]]
    delay: int = 0


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
        said = Counter(str(c.supervisions[0].speaker) for c in found)
        share = [said[str(c.supervisions[0].speaker)] ** -config.speaker_balance for c in found]
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
    said: Sequence[tuple[SupervisionSegment, float]],
    repeats: Sequence[float],
    config: DataConfig,
    seed: int,
    epoch: int,
) -> list[list[tuple[int, ...]]]:
    """Batches of examples: an example is one utterance or several, joined, as numbers of `said`.

    said: what is said in an utterance and its duration in seconds. repeats: how often an epoch takes each.
    """
    rng = np.random.default_rng((seed, epoch, 2))
    order = epoch_order(repeats, seed, epoch)
    mates: dict[str, list[int]] = {}
    for i, (supervision, _) in enumerate(said):
        mates.setdefault(str(supervision.speaker), []).append(i)
    wordless = [i for i, (supervision, _) in enumerate(said) if not supervision.text]

    def mate(of: int) -> int:
        pool: Sequence[int] = mates[str(said[of][0].speaker)]
        draw = rng.random()
        if wordless and draw < WORDLESS:
            pool = wordless
        elif draw > 1 - ANYONE or len(pool) == 1:
            # nor is one who has a single utterance heard to say it again and again
            pool = order
        return int(pool[rng.integers(len(pool))])

    examples, durations = [], []
    for first in map(int, order):
        chosen, total = [first], said[first][1]
        if rng.random() < config.concatenate_prob:
            while (longer := total + said[another := mate(first)][1]) <= config.max_seconds:
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


class AudioBatches:
    """Batches of augmented audio."""

    def __init__(self, config: DataConfig, seed: int, rank: int = 0, world: int = 1):
        self.config, self.seed, self.rank, self.world = config, seed, rank, world
        self.cuts, self.repeats = load_cuts(config)
        self.augmenter = Augmenter(config.augment)

    @property
    def hours(self) -> float:
        return sum(c.duration * r for c, r in zip(self.cuts, self.repeats, strict=True)) / 3600

    def epoch(self, epoch: int, start: int = 0) -> Iterator[AudioBatch | None]:
        """The batches of an epoch from number `start` on."""
        plan = list(enumerate(self.plan(epoch)))[start:]
        yield from prefetch(plan, lambda numbered: self.load(numbered[1], epoch, numbered[0]))

    def plan(self, epoch: int) -> list[list[tuple[int, ...]]]:
        """The epoch's batches of examples; an example is one utterance or several, joined."""
        return plan_epoch(
            [(c.supervisions[0], c.duration) for c in self.cuts], self.repeats, self.config, self.seed, epoch
        )

    def load(self, batch: list[tuple[int, ...]], epoch: int, number: int) -> AudioBatch | None:
        """This process's share of batch `number` of the epoch, loaded and augmented; None where it has none."""
        if len(batch) <= self.rank:
            return None
        mine = list(enumerate(batch))[self.rank :: self.world]
        loaded = [self._example(e, example_rng(self.seed, epoch, number, row)) for row, e in mine]
        noisy, clean, cuts = zip(*loaded, strict=True)
        return collate_audio(noisy, list(cuts), clean)

    def _example(
        self, indices: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, list[Cut]]:
        """Audio as augmented, without noise and reverberation, and the cuts it is made of."""
        chosen = [self.augmenter.speed(self.cuts[i], rng) for i in indices]
        audio = np.concatenate([load_audio(c) for c in chosen])
        if rng.random() < self.config.shuffle_prob:
            audio = shuffled(audio, rng)
        return *self.augmenter.audio(audio, rng), chosen


def shuffled(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 [N] -> [N], cut into stretches of 0.6 to 2.4 s in a random order, each with 8 ms to fade in and out."""
    fade = SAMPLE_RATE // 125
    cuts = np.cumsum(rng.uniform(0.6, 2.4, 1 + int(len(audio) / SAMPLE_RATE / 0.6)) * SAMPLE_RATE).astype(int)
    parts = np.split(audio, cuts[cuts < len(audio) - fade])
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    result = []
    for i in rng.permutation(len(parts)):
        part = parts[i].copy()
        if len(part) >= 2 * fade:
            part[:fade] *= ramp
            part[-fade:] *= ramp[::-1]
        result.append(part)
    return np.concatenate(result)


def collate_audio(
    audio: Sequence[np.ndarray], cuts: list[list[Cut]], clean: Sequence[np.ndarray] | None = None
) -> AudioBatch:
    """Pad to the longest. Without `clean` the audio itself is clean."""
    lengths = [len(a) for a in audio]

    def pad(rows: Sequence[np.ndarray]) -> Tensor:
        padded = np.zeros((len(rows), max(lengths, default=0)), np.float32)
        for row, samples in zip(padded, rows, strict=True):
            row[: len(samples)] = samples
        return torch.from_numpy(padded)

    noisy = pad(audio)
    return AudioBatch(
        audio=noisy, clean=noisy if clean is None else pad(clean), lengths=torch.tensor(lengths), cuts=cuts
    )


def pad_to_chunks(audio: Tensor, chunk_samples: int, extra_chunks: int) -> Tensor:
    """Zeros up to a whole number of chunks and extra_chunks more. [B, N] -> [B, (C + extra) * S]"""
    chunks = -(-audio.shape[1] // chunk_samples) + extra_chunks
    return torch.nn.functional.pad(audio, (0, chunks * chunk_samples - audio.shape[1]))


def prefetch(items: Sequence, load: Callable, depth: int = 4, workers: int | None = None) -> Iterator:
    """load(item) for each, in order, computed ahead in threads: one beside a CPU that trains, 8 to feed a GPU.

    What load raises is raised here.
    """
    workers = workers or (8 if torch.cuda.is_available() else 1)
    pool = ThreadPoolExecutor(workers, "prefetch")
    rest = iter(items)
    try:
        waiting = deque(pool.submit(load, item) for item in islice(rest, depth + workers - 1))
        while waiting:
            value = waiting.popleft().result()
            waiting.extend(pool.submit(load, item) for item in islice(rest, 1))
            yield value
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
