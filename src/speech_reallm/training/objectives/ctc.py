"""Connectionist temporal classification (Graves et al., ICML 2006)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from .base import ModelOutput


class CTCLoss:
    """Between log-probabilities [B, T, V] and batch.pieces [B, U], of batch.piece_lengths [B]."""

    name = "ctc"

    def __init__(self, weight: float = 1.0, *, blank_id: int):
        self.weight, self.blank_id = weight, blank_id

    def __call__(self, output: ModelOutput, batch: Any) -> Tensor:
        assert output.logits is not None and output.lengths is not None
        return F.ctc_loss(
            output.logits.transpose(0, 1), batch.pieces, output.lengths, batch.piece_lengths,
            self.blank_id, "sum", zero_infinity=True,
        )  # fmt: skip
