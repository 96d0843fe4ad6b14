"""Training the alignment teacher with the CTC loss; on cached frames when its encoder is frozen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
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
from ..data.augment import SpecAugment
from ..data.batches import AudioBatches, bucket, epoch_order, pad_to_chunks, prefetch
from ..data.frame_cache import FrameCache
from ..dev_set import DevSet, error_rate
from ..device import autocast, device_of, own_device
from ..loop import world
from ..model.ctc import BLANK, CTCTeacher


@dataclasses.dataclass(kw_only=True, slots=True)
class CTCBatch:
    """Frames [B, T, D] or audio [B, N]; lengths [B] frames or samples; pieces [B, U] and their numbers [B]."""

    frames: Tensor | None = None
    audio: Tensor | None = None
    lengths: Tensor
    pieces: Tensor
    piece_lengths: Tensor


class CTCTask(nn.Module):
    """task: ctc"""

    def __init__(self, config: TrainConfig):
        super().__init__()
        if config.ctc is None or config.data.tokenizer is None:
            raise UserError("a ctc run needs `ctc` and `data.tokenizer`")
        self.config = config
        self.tokenizer = Tokenizer(config.data.tokenizer)
        if self.tokenizer.vocab_size != config.ctc.vocab_size:
            raise UserError(f"ctc.vocab_size must be the tokenizer's, {self.tokenizer.vocab_size}")
        self.model = CTCTeacher(config.ctc)
        for folder in config.init:
            init_from(self.model, folder)
        self.model.to(own_device())
        self.augment = SpecAugment(config.data.augment)
        self.rank, self.world = world()
        self.cache: FrameCache | None = None
        if config.cache:
            if config.optim.encoder_lr_scale:
                raise UserError("`cache` needs a frozen encoder: set optim.encoder_lr_scale to 0")
            self.cache = FrameCache(
                config.cache, self.model.encoder.eval(), config.data, 0, config.seed, config.optim.bf16
            )
        else:
            self.data = AudioBatches(config.data, config.seed, self.rank, self.world)
        self.dev = DevSet(config.data) if config.data.dev else None

    def pieces(self, text: str) -> list[int]:
        return self.tokenizer.encode(normalize_for_training(text))

    def _plan(self, epoch: int) -> list:
        if self.cache is None:
            return self.data.plan(epoch)
        entries, seed = self.cache.entries, self.config.seed
        order = epoch_order([e.repeat for e in entries], seed, epoch)
        batches = bucket([entries[i].seconds for i in order], self.config.data.batch_seconds, seed, epoch)
        return [[int(order[i]) for i in batch] for batch in batches]

    def steps_in_epoch(self, epoch: int) -> int:
        return len(self._plan(epoch))

    def epoch(self, epoch: int, start: int) -> Iterator[CTCBatch | None]:
        if self.cache is not None:
            yield from prefetch(self._plan(epoch)[start:], self._cached)
            return
        for batch in self.data.epoch(epoch, start):
            if batch is None:
                yield None
                continue
            texts = [" ".join(c.supervisions[0].text for c in cuts) for cuts in batch.cuts]
            yield self._labelled(texts, audio=batch.audio, lengths=batch.lengths)

    def _cached(self, indices: list[int]) -> CTCBatch | None:
        if len(indices) <= self.rank:
            return None
        entries = [self.cache.entries[i] for i in indices[self.rank :: self.world]]
        frames = np.zeros((len(entries), max(e.frames for e in entries), self.cache.dim), np.float32)
        for row, entry in zip(frames, entries, strict=True):
            row[: entry.frames] = self.cache.read(entry)
        texts = [e.cut.supervisions[0].text for e in entries]
        return self._labelled(
            texts, frames=torch.from_numpy(frames), lengths=torch.tensor([e.own for e in entries])
        )

    def _labelled(self, texts: list[str], **inputs: Tensor) -> CTCBatch:
        pieces = [torch.tensor(self.pieces(t), dtype=torch.int64) for t in texts]
        return CTCBatch(
            pieces=nn.utils.rnn.pad_sequence(pieces, batch_first=True),
            piece_lengths=torch.tensor([len(p) for p in pieces]),
            **inputs,
        )

    def count(self, batch: CTCBatch) -> int:
        return int(batch.piece_lengths.sum())

    def forward(self, batch: CTCBatch) -> tuple[Tensor, dict[str, float]]:
        frames, lengths = batch.frames, batch.lengths
        if frames is None:
            encoder = self.model.encoder
            audio = pad_to_chunks(batch.audio, encoder.chunk_samples, 0)
            frames = encoder(audio, lengths, self.augment if self.augment and self.training else None)
            lengths = self.model.frame_lengths(lengths)
        elif self.augment and self.training:
            frames = self.augment(frames)
        log_probs = self.model.classify(frames, lengths)
        loss = F.ctc_loss(
            log_probs.transpose(0, 1),
            batch.pieces,
            lengths,
            batch.piece_lengths,
            BLANK,
            "sum",
            zero_infinity=True,
        )
        return loss, {}

    def evaluate(self) -> dict[str, float]:
        if self.dev is None:
            return {"score": 0.0}
        hypotheses = []
        for audio, lengths in self.dev.batches():
            where = device_of(self.model)
            with autocast(where, self.config.optim.bf16):
                log_probs, count = self.model.log_probs(audio.to(where), lengths.to(where))
            for row, frames in zip(log_probs, count.tolist(), strict=True):
                best = torch.unique_consecutive(row[:frames].argmax(-1))
                hypotheses.append(self.tokenizer.decode([i for i in best.tolist() if i != BLANK]))
        wer = error_rate(self.dev.texts, hypotheses)
        return {"score": wer["wer"], **wer}

    def files(self) -> dict[str, Any]:
        return {
            "model.safetensors": dict(self.model.state_dict()),
            "model.json": to_dict(self.config.ctc),
            "tokenizer.model": Path(self.config.data.tokenizer).read_bytes(),
        }
