"""Groups of parameters, learning rates, the moving average of the weights, L2-SP."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .config import OptimConfig


def lr_scale(optim: OptimConfig, step: int, progress: float) -> float:
    """Linear warm-up, then cosine decay to final_lr_scale (or constant)."""
    warm = min(1.0, (step + 1) / max(1, optim.warmup_steps))
    if optim.schedule == "constant":
        return warm
    low = optim.final_lr_scale
    return warm * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def parameter_groups(model: nn.Module, optim: OptimConfig) -> list[dict]:
    """Groups of parameters with their learning rates; weight decay on matrices alone, or L2-SP instead."""
    groups: dict[tuple[float, float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        encoder = name.startswith("encoder.")
        if (encoder and optim.encoder_lr_scale == 0) or any(part in name for part in optim.frozen):
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        scale = optim.encoder_lr_scale if encoder else 1.0
        l2_sp = optim.l2_sp
        if any(part in name for part in optim.new_parameters):
            scale, l2_sp = scale * optim.new_parameters_lr_scale, 0.0
        decay = optim.weight_decay if parameter.ndim >= 2 and not l2_sp else 0.0
        groups.setdefault((scale, decay, l2_sp), []).append(parameter)
    return [
        {"params": p, "scale": s, "weight_decay": d, "l2_sp": a}
        for (s, d, a), p in sorted(groups.items(), key=lambda g: g[0])
    ]


class L2SP:
    """Where the weights began, and the pull back there of those groups that have `l2_sp`.

    Applied after the optimiser's step, decoupled as weight decay is in AdamW: as a term of the loss Adam would
    rescale it.
    """

    def __init__(self, groups: list[dict]):
        self.origins = [[p.detach().clone() for p in g["params"]] if g["l2_sp"] else [] for g in groups]

    @torch.no_grad()
    def pull(self, groups: list[dict]) -> None:
        for group, origin in zip(groups, self.origins, strict=True):
            if origin:
                torch._foreach_lerp_(group["params"], origin, min(1.0, group["lr"] * group["l2_sp"]))


class Ema:
    """Exponential moving average of the trained weights, with the usual ramp at the start."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = model
        self.values = (
            {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad} if decay else {}
        )

    def update(self, step: int) -> None:
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            torch._foreach_lerp_(list(self.values.values()), [parameters[n] for n in self.values], 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The averaged weights in the model's place."""
        parameters = dict(self.model.named_parameters())
        kept = {n: parameters[n].detach().clone() for n in self.values}
        with torch.no_grad():
            for n, value in self.values.items():
                parameters[n].copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for n, value in kept.items():
                    parameters[n].copy_(value)


def make_optimiser(groups: list[dict], optim: OptimConfig) -> torch.optim.Optimizer:
    """AdamW on these groups; on a GPU one kernel for all of them."""
    eps = 1e-9 if not optim.bf16 else 1e-8
    fused = all(p.is_cuda for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=eps, fused=fused or None)
