"""Eight-bit storage of weights: matrices as int8 with a scale a row, everything else as it is.

A shipped model keeps its weights this way, a quarter of the size; training from them loses nothing that the
8-bit ONNX graphs had not lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE = ".int8_scale"


def pack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices (2 dimensions and more) to int8, symmetric, a scale a row; vectors to float32."""
    packed = {}
    for name, value in weights.items():
        if value.ndim < 2 or not value.is_floating_point():
            packed[name] = value.contiguous()
            continue
        rows = value.float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=1e-12) / 127
        packed[name] = torch.round(rows / scale[:, None]).to(torch.int8).reshape(value.shape)
        packed[name + SCALE] = scale
    return packed


def unpack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of pack; weights that are not packed pass through as float32."""
    full = {}
    for name, value in weights.items():
        if name.endswith(SCALE):
            continue
        scale = weights.get(name + SCALE)
        if scale is not None:
            value = value.float() * scale.reshape(-1, *[1] * (value.ndim - 1))
        full[name] = value.float() if value.is_floating_point() else value
    return full
