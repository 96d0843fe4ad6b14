"""Operations that ONNX Runtime has in one piece: what a step of one stream costs is in good part their number.

In torch they are what they say. In a graph each becomes one node of ONNX Runtime's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .norm import RMSNorm

Norm = torch.nn.LayerNorm | RMSNorm


def add_and_normalise(x: Tensor, y: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """x, y [B, T, D] -> x + y, norm(x + y)"""
    if torch.onnx.is_in_onnx_export():
        total, normalised = _AddAndNormalise.apply(x, y, norm.weight, norm.eps, isinstance(norm, RMSNorm))
        return total, normalised
    total = x + y
    return total, norm(total)


def attend_scaled(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int) -> Tensor:
    """q [B, T, H * d], scaled; k, v [B, H, L, d]; additive mask [B, 1, 1, L] -> [B, T, H * d]"""
    if torch.onnx.is_in_onnx_export() and int(q.shape[0]) == 1:
        # which takes masks of all queries
        attended: Tensor = _Attention.apply(q, k, v, mask.expand(-1, -1, int(q.shape[1]), -1), heads)
        return attended
    return _attend_scaled(q, k, v, mask, heads)


def _attend_scaled(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int) -> Tensor:
    q = q.unflatten(-1, (heads, -1)).transpose(1, 2)
    weights = torch.softmax(torch.matmul(q, k.transpose(2, 3)) + mask, -1)
    return torch.matmul(weights, v).transpose(1, 2).flatten(2)


class _AddAndNormalise(torch.autograd.Function):
    @staticmethod
    def forward(
        _context: Any, x: Tensor, y: Tensor, weight: Tensor, eps: float, rms: bool
    ) -> tuple[Tensor, Tensor]:
        total = x + y
        if rms:
            return total, total / torch.sqrt(total.pow(2).mean(-1, keepdim=True) + eps) * weight
        return total, F.layer_norm(total, weight.shape, weight, None, eps)

    @staticmethod
    def symbolic(g: Any, x: Any, y: Any, weight: Any, eps: float, rms: bool) -> Any:
        kind = "SkipSimplifiedLayerNormalization" if rms else "SkipLayerNormalization"
        normalised, _, _, total = g.op(f"com.microsoft::{kind}", x, y, weight, epsilon_f=eps, outputs=4)
        return total.setType(x.type()), normalised.setType(x.type())


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int) -> Tensor:
        return _attend_scaled(q, k, v, mask, heads)

    @staticmethod
    def symbolic(g: Any, q: Any, k: Any, v: Any, mask: Any, heads: int) -> Any:
        none = g.op("prim::Constant")
        none.setType(torch._C.OptionalType.ofTensor())
        made = g.op(
            "com.microsoft::MultiHeadAttention", q, k, v, none, none, mask, num_heads_i=heads, scale_f=1.0
        )
        return made.setType(q.type())
