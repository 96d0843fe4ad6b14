"""Utterances whose encoder frames lie on disk."""

from __future__ import annotations

import numpy as np

from ....tokenizer import Tokenizer
from ...config import DataConfig
from ..frame_cache import FrameCache
from ..labels import join, labels_of
from ..planning import Plan, PlanCache, plan_epoch
from .audio import text_of
from .base import Example, Source


class CachedFrames(Source):
    """Batches of cached frames; with a tokenizer also their labels."""

    def __init__(
        self,
        cache: FrameCache,
        config: DataConfig,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        chunk_seconds: float,
        tokenizer: Tokenizer | None = None,
        every_speed: bool = False,
    ):
        """An epoch takes each utterance once, at one of the cached speeds, or at every one of them.

        chunk_seconds: audio of a chunk. tokenizer: of the labels, for aligned manifests.
        """
        self.cache, self.config, self.seed = cache, config, seed
        self.rank, self.world_size = rank, world_size
        self.chunk_seconds, self.tokenizer = chunk_seconds, tokenizer
        self.variants = 1 if every_speed else max(1, len(set(config.augment.speeds)))
        self.plan = PlanCache(self._plan)

    def _plan(self, epoch: int) -> Plan:
        utterances = [(e.cut.supervisions[0], e.seconds) for e in self.cache.entries]
        repeats = [e.repeat / self.variants for e in self.cache.entries]
        return plan_epoch(utterances, repeats, self.config, self.seed, epoch)

    def steps(self, epoch: int) -> int:
        return len(self.plan(epoch))

    def load(self, epoch: int, number: int, rng: np.random.Generator) -> list[Example]:
        return [self.example(indices) for indices in self.plan(epoch)[number][self.rank :: self.world_size]]

    def example(self, indices: tuple[int, ...]) -> Example:
        """The cached utterances with these numbers as one example; only the last keeps its flush."""
        entries, per = [self.cache.entries[i] for i in indices], self.cache.frames_per_chunk
        parts = [self.cache.read(e)[: e.speech_frames] for e in entries[:-1]]
        frames = np.concatenate([*parts, self.cache.read(entries[-1])])
        labels = None
        if self.tokenizer is not None:
            seconds = [e.speech_frames // per * self.chunk_seconds for e in entries]
            labels = join(
                [(labels_of(e.cut, self.tokenizer), s) for e, s in zip(entries, seconds, strict=True)]
            )
        speech_frames = sum(e.speech_frames for e in entries)
        return Example(
            frames=frames,
            labels=labels,
            chunks=-(-speech_frames // per),
            speech_frames=speech_frames,
            text=text_of([e.cut for e in entries]),
        )
