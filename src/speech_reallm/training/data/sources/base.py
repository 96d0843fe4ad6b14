"""Where examples come from: one protocol, and a mixture of sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..labels import Labels
from ..prefetch import prefetch


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One row of a batch before it is padded.

    audio float32 [N] or frames [C * F, E], flush included, or neither: text alone. clean: the audio [N] without
    augmentation but for its volume. labels: pieces and their end times in seconds. chunks: those of the speech, the
        flush
    not counted; speech_frames: of frames, those of the speech. text: as the manifest has it.
    """

    audio: np.ndarray | None = None
    clean: np.ndarray | None = None
    frames: np.ndarray | None = None
    labels: Labels | None = None
    chunks: int = 0
    speech_frames: int = 0
    text: str = ""


# the targets are made here, in the worker threads
Collate = Callable[[list[Example], np.random.Generator], Any]


class BatchSource(Protocol):
    """Seed and epoch alone decide the batches, whatever the number of processes."""

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""

    def load(self, epoch: int, number: int, rng: np.random.Generator) -> list[Example]:
        """This process's share of batch `number`; empty where it has none. rng: for what is random about the batch."""

    def batches(self, epoch: int, start: int, collate: Collate) -> Iterator[Any]:
        """From batch `start` on; None where this process has no share. `collate` runs in the worker threads."""


class Source:
    """batches() for whatever has steps() and load(); `seed` is that of the run."""

    seed: int

    def steps(self, epoch: int) -> int:
        raise NotImplementedError

    def load(self, epoch: int, number: int, rng: np.random.Generator) -> list[Example]:
        raise NotImplementedError

    def batches(self, epoch: int, start: int, collate: Collate) -> Iterator[Any]:
        def make(number: int) -> Any:
            rng = np.random.default_rng((self.seed, epoch, number, 5))
            examples = self.load(epoch, number, rng)
            return collate(examples, rng) if examples else None

        return prefetch(range(start, self.steps(epoch)), make)


class Mixture(Source):
    """A main source, some of whose batches are replaced by those of others.

    The draw depends on (seed, epoch, batch number) alone, so that all processes agree.
    """

    def __init__(self, main: BatchSource, others: Sequence[tuple[float, BatchSource]], seed: int):
        """others: each with the share of batches, 0 to 1, that it takes of those that the ones before it leave."""
        self.main, self.others, self.seed = main, others, seed

    def steps(self, epoch: int) -> int:
        return self.main.steps(epoch)

    def load(self, epoch: int, number: int, rng: np.random.Generator) -> list[Example]:
        for share, source in self.others:
            if rng.random() < share:
                return source.load(epoch, number, rng)
        return self.main.load(epoch, number, rng)
