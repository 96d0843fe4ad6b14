"""What a task is, and the table of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import UserError
from ...tokenizer import Tokenizer, open_tokenizer
from ..config import RunConfig
from ..data.sources.base import BatchSource, Example
from ..device import own_device
from ..objectives.base import ModelOutput, Objective
from ..weights import init_from

# a file of best/: tensors (safetensors), bytes, or plain data (JSON)
Content = Any


class Task(nn.Module, ABC):
    """A page that puts a source, targets, a model and objectives together. The loop knows nothing else.

    A module, so that its model moves and is wrapped with it. Batches have `num_targets`, the number that the loss is
    summed over; a frozen teacher is not part of `model`.
    """

    config: RunConfig
    model: nn.Module
    source: BatchSource

    @abstractmethod
    def collate(self, examples: list[Example], rng: np.random.Generator) -> Any:
        """A batch of these examples; the targets are made here."""

    @abstractmethod
    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, summed over the batch's targets, and metrics."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Holds "score"; the weights with the lowest are kept."""

    @abstractmethod
    def artifacts(self) -> dict[str, Content]:
        """The files of best/."""


def total_loss(
    objectives: Sequence[Objective], output: ModelOutput, batch: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the objectives, and each one's mean over the batch's targets."""
    loss = torch.zeros((), device=own_device()) if not objectives else None
    metrics = {}
    for objective in objectives:
        value = objective(output, batch)
        metrics[objective.name] = value.detach() / max(batch.num_targets, 1)
        loss = objective.weight * value if loss is None else loss + objective.weight * value
    assert loss is not None
    return loss, metrics


def load_tokenizer(path: str, vocab_size: int, setting: str) -> Tokenizer:
    """Raises UserError where the model's `setting` is not the tokenizer's number of pieces."""
    tokenizer = open_tokenizer(path)
    if tokenizer.vocab_size != vocab_size:
        raise UserError(f"{setting} must be the tokenizer's, {tokenizer.vocab_size}")
    return tokenizer


def started(model: nn.Module, init: Sequence[str], tokenizer: Tokenizer | None = None) -> nn.Module:
    """The model with the weights of the folders in `init`, on this process's device."""
    for folder in init:
        init_from(model, folder, tokenizer=tokenizer)
    return model.to(own_device())


def task_configs() -> dict[str, type[RunConfig]]:
    """The class of the configuration of each task, by its name in a training file."""
    return {name: config for name, (config, _) in _table().items()}


def make_task(config: RunConfig) -> Task:
    """The task of a configuration, with the weights that its run starts from. Raises UserError."""
    _, task = _table()[config.task]
    return task(config)


def _table() -> dict[str, tuple[type[RunConfig], Callable[[Any], Task]]]:
    from . import ctc, distill, llm, lm, reallm, transducer

    return {
        "distill": (distill.DistillConfig, distill.DistillTask),
        "ctc": (ctc.CTCRunConfig, ctc.CTCTask),
        "lm": (lm.LMConfig, lm.LMTask),
        "reallm": (reallm.ReaLLMConfig, reallm.ReaLLMTask),
        "llm": (llm.LLMConfig, llm.LLMTask),
        "transducer": (transducer.TransducerConfig, transducer.TransducerTask),
    }
