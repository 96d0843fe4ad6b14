"""Terms of the loss behind one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

# a target that does not count
IGNORE = -100


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOutput:
    """What the objectives of a batch are made of; a task fills in what its objectives need.

    logits [B, T, V] float32 (of a CTC model log-probabilities), lengths [B] of them. frames [B, T, D] of the
    encoder, and target_frames [B, T', D] of the offline one for the same audio from its start; frame_lengths [B]:
    those that count.
    """

    logits: Tensor | None = None
    lengths: Tensor | None = None
    frames: Tensor | None = None
    target_frames: Tensor | None = None
    frame_lengths: Tensor | None = None


class Objective(Protocol):
    """One term of the loss, with its weight from the configuration."""

    name: str
    weight: float

    def __call__(self, output: ModelOutput, batch: Any) -> Tensor:
        """Sum over the batch's targets, scalar float32: processes and accumulated batches add up."""
