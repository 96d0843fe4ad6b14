"""Cross-entropy on the pieces and BLANK of one fixed alignment, or on text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import IGNORE, ModelOutput


class CrossEntropy:
    """Between logits [B, T, V] and batch.targets [B, T]."""

    name = "cross_entropy"

    def __init__(
        self,
        weight: float = 1.0,
        *,
        blank_id: int | None = None,
        blank_weight: float = 1.0,
        label_smoothing: float = 0.0,
    ):
        """blank_weight: weight of BLANK targets against pieces."""
        self.weight, self.blank_id = weight, blank_id
        self.blank_weight, self.label_smoothing = blank_weight, label_smoothing

    def __call__(self, output: ModelOutput, batch: Any) -> Tensor:
        logits = output.logits
        assert logits is not None
        weight = None
        if self.blank_id is not None:
            weight = torch.ones(logits.shape[-1], device=logits.device)
            weight[self.blank_id] = self.blank_weight
        return F.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), weight, ignore_index=IGNORE, reduction="sum",
            label_smoothing=self.label_smoothing if torch.is_grad_enabled() else 0.0,
        )  # fmt: skip


@torch.no_grad()
def piece_accuracy(logits: Tensor, targets: Tensor, blank_id: int) -> Tensor:
    """Share of the pieces, BLANK left out, that have the highest logit. [B, T, V], [B, T] -> scalar"""
    is_piece = (targets != IGNORE) & (targets != blank_id)
    return ((logits.argmax(-1) == targets) & is_piece).sum() / is_piece.sum().clamp(min=1)
