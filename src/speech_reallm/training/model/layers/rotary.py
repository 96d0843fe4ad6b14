"""Rotary positions (Su et al., arXiv 2104.09864): relative, so that an endless stream needs no absolute position."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def rotary(position: Tensor, dims: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """cos and sin [..., dims / 2] float32 for integer positions [...].

    Angles are reduced in double precision: an endless stream counts positions without bound.
    """
    freqs = theta ** (-torch.arange(0, dims, 2, dtype=torch.float64, device=position.device) / dims)
    turns = position.double().unsqueeze(-1) * (freqs / (2 * torch.pi))
    angles = ((turns - turns.floor()) * (2 * torch.pi)).float()
    return angles.cos(), angles.sin()


@lru_cache(maxsize=4)
def rotary_table(count: int, dims: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """rotary() of the positions from 0 on, made once for all layers of a pass. Not to be changed in place."""
    return rotary(torch.arange(count, device=device), dims)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first r dims of each head, i with i + r / 2. x [..., T, H, d]; cos, sin [..., T, r / 2]."""
    half = cos.shape[-1]
    cos, sin = cos.unsqueeze(-2).to(x.dtype), sin.unsqueeze(-2).to(x.dtype)
    a, b = x[..., :half], x[..., half : 2 * half]
    turned = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat(turned if 2 * half == x.shape[-1] else (*turned, x[..., 2 * half :]), dim=-1)


class Rotation:
    """rotate() for one position or chunk at a time, in few operations: what a step costs is mostly their number.

    cos, sin [B, T, r / 2] as rotary() gives them, for heads of `dims` dimensions.
    """

    def __init__(self, cos: Tensor, sin: Tensor, dims: int):
        self.dims, half = dims, int(cos.shape[-1])
        # ONNX Runtime has an operation for it, which takes the angles of one stream
        self.fused = torch.onnx.is_in_onnx_export() and int(cos.shape[0]) == 1
        if self.fused:
            self.cos, self.sin = (t.reshape(-1, half) for t in (cos, sin))
            self.rotated = 0 if 2 * half == dims else 2 * half
            return
        rest = dims - 2 * half
        self.cos = F.pad(torch.cat((cos, cos), -1), (0, rest), value=1.0).unsqueeze(-2)
        self.sin = F.pad(torch.cat((-sin, sin), -1), (0, rest)).unsqueeze(-2)
        order = [*range(half, 2 * half), *range(half), *range(2 * half, dims)]
        self.order = torch.tensor(order, device=cos.device)

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, T, H * d] -> the same, each head rotated"""
        if self.fused:
            return _FusedRotation.apply(x, self.cos, self.sin, int(x.shape[-1]) // self.dims, self.rotated)
        return self._rotated(x.unflatten(-1, (-1, self.dims))).flatten(-2)

    def heads(self, x: Tensor) -> Tensor:
        """x [B, H, T, d] -> the same, rotated"""
        if self.fused:
            return _FusedRotation.apply(x, self.cos, self.sin, int(x.shape[1]), self.rotated)
        return self._rotated(x.transpose(1, 2)).transpose(1, 2)

    def _rotated(self, x: Tensor) -> Tensor:
        """x [B, T, H, d]"""
        return x * self.cos + x.index_select(-1, self.order) * self.sin


class _FusedRotation(torch.autograd.Function):
    """x [1, T, H * d] or [1, H, T, d], cos and sin [T, r / 2], r (0: all of d) -> x rotated; only for graphs."""

    @staticmethod
    def forward(_context: Any, x: Tensor, cos: Tensor, sin: Tensor, heads: int, _size: int) -> Tensor:
        if x.ndim == 4:
            return rotate(x.transpose(1, 2), cos, sin).transpose(1, 2)
        return rotate(x.unflatten(-1, (heads, -1)), cos, sin).flatten(-2)

    @staticmethod
    def symbolic(g: Any, x: Any, cos: Any, sin: Any, heads: int, size: int) -> Any:
        return g.op(
            "com.microsoft::RotaryEmbedding",
            x,
            g.op("Constant", value_t=torch.tensor([0])),
            cos,
            sin,
            num_heads_i=heads,
            rotary_embedding_dim_i=size,
        ).setType(x.type())
