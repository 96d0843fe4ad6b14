"""Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467), in operations that export to ONNX."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x [..., D] -> x / rms(x) * weight; the mean square is taken in float32."""

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # written so that ONNX Runtime makes one operation of it
        full = x.float()
        full = full / torch.sqrt(full.pow(2).mean(-1, keepdim=True) + self.eps)
        return full.to(x.dtype) * self.weight.to(x.dtype)
