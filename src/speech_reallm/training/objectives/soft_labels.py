"""Knowledge distillation: what an offline recogniser predicts, where a piece is emitted (Hinton et al., 2015)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ...tokenizer import START
from ..model.offline_teacher import OfflineTeacher
from .base import ModelOutput


class SoftLabels:
    """The difference between the soft and the hard term of a piece's loss.

    So a weight of 0.7 makes 0.7 of a piece's label the teacher's prediction, whatever the cross-entropy beside it: what
    the hard label has of that is taken back.
    """

    name = "soft_labels"

    def __init__(self, weight: float, teacher: OfflineTeacher):
        self.weight, self.teacher = weight, teacher

    def __call__(self, output: ModelOutput, batch: Any) -> Tensor:
        assert output.logits is not None and output.target_frames is not None
        # the text alone, and after how many of its pieces each position stands
        is_piece = batch.pieces >= 0
        place = is_piece.int().argsort(dim=1, descending=True, stable=True)[:, : int(is_piece.sum(1).max())]
        text = F.pad(batch.pieces.gather(1, place).clamp(min=0), (1, 0), value=START)
        predicted = self.teacher.predictions(output.target_frames, batch.lengths, text)
        # the teacher predicts what comes after the last piece: where something else is right it is not asked
        row, step = batch.soft_label_mask.nonzero(as_tuple=True)
        predicted = predicted[row, is_piece.cumsum(1)[row, step]]
        log_probs = output.logits[row, step].log_softmax(-1)
        hard = log_probs.gather(-1, batch.targets[row, step][:, None]).squeeze(-1)
        return (hard - (predicted * log_probs).sum(-1)).sum()
