"""Squared error between the encoder's frames and those of an offline encoder on the same audio."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import ModelOutput


def frame_error(frames: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Sum over the frames inside of their squared error, in parts of the variance of the target's. [B, T, D], [B, T]

    The variance counts as a tenth of the frames' power at least: those of silence are all alike.
    """
    error = (frames - target).square().mean(-1)
    known = target[inside]
    scale = torch.maximum(known.var(0).mean(), 0.1 * known.square().mean()).clamp(min=1e-6)
    return (error * inside).sum() / scale


class FrameDistillation:
    """The mean error of the frames that count, times the number of the batch's targets."""

    name = "frame_distillation"

    def __init__(self, weight: float = 1.0):
        self.weight = weight

    def __call__(self, output: ModelOutput, batch: Any) -> Tensor:
        frames, target, lengths = output.frames, output.target_frames, output.frame_lengths
        assert frames is not None and target is not None and lengths is not None
        size = min(target.shape[1], frames.shape[1])
        inside = torch.arange(size, device=frames.device)[None] < lengths[:, None]
        error = frame_error(frames[:, :size], target[:, :size], inside)
        return error * (batch.num_targets / inside.sum())
