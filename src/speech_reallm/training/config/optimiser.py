"""Configuration of the optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW, its schedule, and what is trained how fast.

    steps, lr, warmup_steps, schedule, final_lr_scale: optimiser steps; peak learning rate; linear warm-up; decay to
        final_lr_scale of the peak.
    encoder_lr_scale: learning rate of the encoder relative to lr; 0 freezes it.
    weight_decay, betas, clip, bf16: of AdamW; norm of gradients; bfloat16 where the machine has instructions for it.
    new_parameters, new_parameters_lr_scale: weights whose names contain one of these learn faster, by this factor:
        what is new beside what is trained already.
    frozen: weights whose names contain one of these stay as they are.
    l2_sp: all other weights are pulled to where they began, by lr * l2_sp of the distance, instead of to zero by
        weight_decay (L2-SP, Li et al., ICML 2018), so that what a published model was trained on is not forgotten.
    accumulate: batches of a step. ema: decay of the moving average of the weights that is evaluated and saved.
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "fast": "new_parameters",
        "fast_lr_scale": "new_parameters_lr_scale",
        "anchor": "l2_sp",
    }

    steps: int
    lr: float
    encoder_lr_scale: float = 1.0
    warmup_steps: int = 200
    schedule: Literal["cosine", "constant"] = "cosine"
    final_lr_scale: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    new_parameters: tuple[str, ...] = ()
    new_parameters_lr_scale: float = 5.0
    frozen: tuple[str, ...] = ()
    l2_sp: float = 0.0
    clip: float = 1.0
    accumulate: int = 1
    ema: float = 0.0
    bf16: bool = True
