"""Pretraining a decoder as a plain language model, on text alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import ModelConfig, RunConfig, to_dict
from ..data.sources.base import Example
from ..data.sources.text import TextSource
from ..device import autocast, device_of
from ..distributed import rank_and_world_size
from ..model.decoders.llama import LlamaStack
from ..objectives.base import ModelOutput
from ..objectives.cross_entropy import CrossEntropy
from .base import Content, Task, load_tokenizer, started, total_loss


@dataclass(frozen=True, kw_only=True, slots=True)
class LMConfig(RunConfig):
    """A run of `task: lm`: the decoder learns the language before it gets any speech. See RunConfig for the rest.

    model: whose decoder is trained. data.tokenizer: of its pieces.
    text: text files, a sentence a line.
    """

    model: ModelConfig | None = None
    text: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.need(model=self.model, text=self.text, data__tokenizer=self.data.tokenizer)


@dataclass(kw_only=True, slots=True)
class TextBatch:
    """Pieces of running text [B, T]; each but the first of a row is a target [B, T - 1]."""

    pieces: Tensor
    targets: Tensor
    num_targets: int

    @classmethod
    def of(cls, pieces: np.ndarray) -> TextBatch:
        """pieces int64 [B, T]"""
        rows = torch.from_numpy(pieces)
        return cls(pieces=rows[:, :-1], targets=rows[:, 1:], num_targets=rows.shape[0] * (rows.shape[1] - 1))

    @classmethod
    def collated(cls, examples: list[Example]) -> TextBatch:
        return cls.of(np.stack([np.asarray(e.labels.pieces, np.int64) for e in examples if e.labels]))


class _DecoderOnly(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        # of any kind of decoder these are the weights that text trains
        self.decoder = LlamaStack(config.decoder, config.vocab_size)


class LMTask(Task):
    """task: lm"""

    config: LMConfig
    model: _DecoderOnly
    source: TextSource

    def __init__(self, config: LMConfig):
        super().__init__()
        assert config.model is not None and config.data.tokenizer is not None
        self.config = config
        self.tokenizer = load_tokenizer(config.data.tokenizer, config.model.vocab_size, "model.vocab_size")
        self.model = _DecoderOnly(config.model)
        started(self.model, config.init)
        self.objectives = [CrossEntropy()]
        self.source = TextSource(
            config.text, self.tokenizer, Path(config.out), config.data.batch_seconds, config.seed,
            *rank_and_world_size(),
        )  # fmt: skip

    def collate(self, examples: list[Example], rng: np.random.Generator) -> TextBatch:
        return TextBatch.collated(examples)

    def forward(self, batch: TextBatch) -> tuple[Tensor, dict[str, Tensor]]:
        output = ModelOutput(logits=self.model.decoder.text_logits(batch.pieces).float())
        return total_loss(self.objectives, output, batch)[0], {}

    def evaluate(self) -> dict[str, float]:
        total = count = 0.0
        where = device_of(self.model)
        for start in range(0, len(self.source.dev), 32):
            batch = TextBatch.of(self.source.dev[start : start + 32])
            pieces, targets = batch.pieces.to(where), batch.targets.to(where)
            with autocast(where, self.config.optim.bf16):
                logits = self.model.decoder.text_logits(pieces).float()
            total += float(
                nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
            )
            count += batch.num_targets
        loss = total / count
        return {"score": loss, "loss": loss, "perplexity": math.exp(loss)}

    def artifacts(self) -> dict[str, Content]:
        return {
            "model.safetensors": dict(self.model.state_dict()),
            "model.json": to_dict(self.config.model),
            self.tokenizer.file_name: self.tokenizer.path.read_bytes(),
        }
