"""Utterances from manifests, joined, augmented."""

from __future__ import annotations

import numpy as np
from lhotse.cut import Cut

from ....audio import SAMPLE_RATE
from ....tokenizer import Tokenizer
from ...config import DataConfig
from ..augment import Augmenter
from ..labels import join, labels_of
from ..manifests import load_audio
from ..planning import Plan, PlanCache, example_rng, load_cuts, plan_epoch
from .base import Example, Source


class AudioSource(Source):
    """Batches of augmented audio; with a tokenizer also their labels."""

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        chunk_samples: int = 0,
        tokenizer: Tokenizer | None = None,
    ):
        """rank, world_size: this process's share of each batch. tokenizer: of the labels, for aligned manifests."""
        self.config, self.seed, self.rank, self.world_size = config, seed, rank, world_size
        self.chunk_samples, self.tokenizer = chunk_samples, tokenizer
        self.cuts, self.repeats = load_cuts(config)
        self.augmenter = Augmenter(config.augment)
        self.plan = PlanCache(self._plan)

    def _plan(self, epoch: int) -> Plan:
        utterances = [(c.supervisions[0], c.duration) for c in self.cuts]
        return plan_epoch(utterances, self.repeats, self.config, self.seed, epoch)

    def steps(self, epoch: int) -> int:
        return len(self.plan(epoch))

    def load(self, epoch: int, number: int, rng: np.random.Generator) -> list[Example]:
        mine = list(enumerate(self.plan(epoch)[number]))[self.rank :: self.world_size]
        return [self.example(indices, epoch, number, row) for row, indices in mine]

    def example(self, indices: tuple[int, ...], epoch: int, number: int, row: int) -> Example:
        """The utterances with these numbers as one example, in row `row` of batch `number`."""
        rng = example_rng(self.seed, epoch, number, row)
        chosen = [self.augmenter.speed(self.cuts[i], rng) for i in indices]
        audio = np.concatenate([load_audio(c) for c in chosen])
        if rng.random() < self.config.shuffle_prob:
            audio = shuffled(audio, rng)
        audio, clean = self.augmenter.audio(audio, rng)
        labels = None
        if self.tokenizer is not None:
            labels = join([(labels_of(c, self.tokenizer), c.duration) for c in chosen])
        return Example(
            audio=audio,
            clean=clean,
            labels=labels,
            chunks=-(-len(audio) // self.chunk_samples) if self.chunk_samples else 0,
            text=text_of(chosen),
        )


def text_of(cuts: list[Cut]) -> str:
    """The texts of cuts, one after another."""
    return " ".join(c.supervisions[0].text or "" for c in cuts)


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
