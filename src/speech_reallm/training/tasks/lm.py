"""Pretraining the decoder as a plain language model: it learns English before it hears any."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import UserError
from ...text import normalize_for_training
from ...tokenizer import Tokenizer
from ..checkpoint import init_from
from ..config import TrainConfig, to_dict
from ..device import autocast, device_of, own_device
from ..loop import first_process_first, world
from ..model.decoders.llama import LlamaDecoder

LENGTH = 160  # pieces a sequence, about 80 words
DEV_EVERY = 200  # one sequence in so many is held out


class TextWindows:
    """Text files as one long line of pieces, cut into sequences of LENGTH at a new offset every epoch."""

    def __init__(self, files: Sequence[str], tokenizer: Tokenizer, folder: Path, seed: int, batch_size: int):
        self.seed, self.batch_size = seed, batch_size
        with first_process_first():
            ids = _pieces(files, tokenizer, folder)
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

    def plan(self, epoch: int) -> list[np.ndarray]:
        """Start positions of each batch of an epoch."""
        rng = np.random.default_rng((self.seed, epoch, 3))
        starts = np.arange(rng.integers(LENGTH), len(self.ids) - LENGTH, LENGTH)
        rng.shuffle(starts)
        return [starts[i : i + self.batch_size] for i in range(0, len(starts), self.batch_size)]

    def batch(self, starts: np.ndarray) -> Tensor | None:
        """[B, LENGTH] int64; None for no starts"""
        if not len(starts):
            return None
        return torch.from_numpy(np.stack([self.ids[s : s + LENGTH] for s in starts]).astype(np.int64))


def _pieces(files: Sequence[str], tokenizer: Tokenizer, folder: Path) -> np.ndarray:
    """All pieces of the files, in as few bytes as their ids take; computed once and kept under `folder`."""
    from tqdm import tqdm

    key = hashlib.sha256(tokenizer.path.read_bytes())
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
            found += tokenizer.encode(normalize_for_training(line))
    ids = np.asarray(found, np.min_scalar_type(tokenizer.vocab_size))
    if len(ids) < 4 * LENGTH:
        raise UserError("the text is too short to train on")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = cached.with_suffix(".part.npy")
    np.save(temporary, ids)
    temporary.replace(cached)
    return ids


class _DecoderOnly(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        # text has no frames to read
        self.decoder = LlamaDecoder(dataclasses.replace(config.decoder, frame_chunks=0), config.vocab_size)


def text_loss(decoder: nn.Module, ids: Tensor) -> Tensor:
    """Sum of the cross-entropy over pieces 1 ... of ids [B, T]."""
    logits = decoder(decoder.embed(ids[:, :-1])).float()
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")


class LMTask(nn.Module):
    """task: lm"""

    def __init__(self, config: TrainConfig):
        super().__init__()
        if config.model is None or config.data.tokenizer is None or not config.text:
            raise UserError("an lm run needs `model`, `text` and `data.tokenizer`")
        self.config = config
        self.model = _DecoderOnly(config.model)
        for folder in config.init:
            init_from(self.model, folder)
        self.model.to(own_device())
        self.rank, self.world = world()
        tokenizer = Tokenizer(config.data.tokenizer)
        # batch_seconds is speech; text is counted as LENGTH pieces for every 36 s, the rate of read speech
        size = max(1, round(config.data.batch_seconds / 36))
        self.text = TextWindows(config.text, tokenizer, Path(config.out), config.seed, size)

    def steps_in_epoch(self, epoch: int) -> int:
        return len(self.text.plan(epoch))

    def epoch(self, epoch: int, start: int) -> Iterator[Tensor | None]:
        for starts in self.text.plan(epoch)[start:]:
            yield self.text.batch(starts[self.rank :: self.world])

    def count(self, batch: Tensor) -> int:
        return batch.shape[0] * (batch.shape[1] - 1)

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        return text_loss(self.model.decoder, batch), {}

    def evaluate(self) -> dict[str, float]:
        total = count = 0.0
        for rows in torch.from_numpy(self.text.dev).split(32):
            where = device_of(self.model)
            with autocast(where, self.config.optim.bf16):
                total += float(text_loss(self.model.decoder, rows.to(where)))
            count += self.count(rows)
        loss = total / count
        return {"score": loss, "loss": loss, "perplexity": math.exp(loss)}

    def files(self) -> dict[str, Any]:
        return {
            "model.safetensors": dict(self.model.state_dict()),
            "model.json": to_dict(self.config.model),
            "tokenizer.model": Path(self.config.data.tokenizer).read_bytes(),
        }
