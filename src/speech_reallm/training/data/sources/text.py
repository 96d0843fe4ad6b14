"""Text alone, for a decoder as a plain language model."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ....errors import UserError
from ....text import normalize_for_training
from ....tokenizer import Tokenizer
from ...distributed import first_process_first
from ..labels import Labels
from ..planning import PlanCache
from .base import Example, Source

LENGTH = 160  # pieces a sequence, about 80 words
DEV_EVERY = 200  # one sequence in so many is held out


class TextSource(Source):
    """Text files as one long line of pieces, cut into sequences of LENGTH at a new offset every epoch."""

    def __init__(
        self,
        files: Sequence[str],
        tokenizer: Tokenizer,
        folder: Path,
        batch_seconds: float,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        clean: Callable[[str], str] = normalize_for_training,
    ):
        """clean: of a line of text, what the model writes of it. folder: where the pieces are kept.

        batch_seconds: LENGTH pieces count as 36 s, the rate of read speech.
        """
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.batch_size = max(1, round(batch_seconds / 36))
        self.plan = PlanCache(self._plan)
        with first_process_first():
            ids = _pieces(files, tokenizer, folder, clean)
        windows = np.arange(len(ids) // LENGTH)
        held = windows % DEV_EVERY == 0
        self.dev = np.stack([ids[w * LENGTH : (w + 1) * LENGTH] for w in windows[held][:200]]).astype(
            np.int64
        )
        # the held-out stretches are cut out of the training text
        keep = np.ones(len(ids), bool)
        for w in windows[held]:
            keep[w * LENGTH : (w + 1) * LENGTH] = False
        self.ids = ids[keep]

    def _plan(self, epoch: int) -> list[np.ndarray]:
        """Start positions of each batch of an epoch."""
        rng = np.random.default_rng((self.seed, epoch, 3))
        starts = np.arange(rng.integers(LENGTH), len(self.ids) - LENGTH, LENGTH)
        rng.shuffle(starts)
        return [starts[i : i + self.batch_size] for i in range(0, len(starts), self.batch_size)]

    def steps(self, epoch: int) -> int:
        return len(self.plan(epoch))

    def load(self, epoch: int, number: int, rng: np.random.Generator) -> list[Example]:
        plan = self.plan(epoch)
        # within a mixture the batches are counted by the main source
        starts = plan[number % len(plan)][self.rank :: self.world_size]
        return [
            Example(labels=Labels(pieces=self.ids[s : s + LENGTH].astype(np.int64).tolist(), ends=[]))
            for s in starts
        ]


def _pieces(
    files: Sequence[str], tokenizer: Tokenizer, folder: Path, clean: Callable[[str], str]
) -> np.ndarray:
    """All pieces of the files, in as few bytes as their ids take; computed once and kept under `folder`."""
    from tqdm import tqdm

    key = hashlib.sha256(tokenizer.path.read_bytes())
    if clean is not normalize_for_training:
        key.update(clean.__name__.encode())
    for name in files:
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no text file {name}")
        key.update(f"{name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    cached = folder / f"pieces-{key.hexdigest()[:12]}.npy"
    if cached.exists():
        return np.load(cached)
    found: list[int] = []
    for name in files:
        lines = Path(name).read_text(encoding="utf-8", errors="replace").splitlines()
        for line in tqdm(
            lines, desc=f"reading {Path(name).name}", mininterval=2 if sys.stderr.isatty() else 60
        ):
            found += tokenizer.encode(clean(line))
    ids = np.asarray(found, np.min_scalar_type(tokenizer.vocab_size))
    if len(ids) < 4 * LENGTH:
        raise UserError("the text is too short to train on")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = cached.with_suffix(".part.npy")
    np.save(temporary, ids)
    temporary.replace(cached)
    return ids
