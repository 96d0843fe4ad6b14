"""Eight-bit storage of weights, in the layout that the ONNX graphs compute with, so that both share one file.

A matrix [N, K] is kept as bytes with a scale for each row: value = (byte - 128) * scale. Integer products of such rows
with 8-bit inputs are exact on every processor, and a row's scale is applied once, to the sum
(export/shared_weights.py); training from such weights loses nothing that the graphs had not lost.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# smaller ones are not worth it
SMALLEST = 8192
SCALE, SHAPE = ".scale", ".shape"


def pack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices (2 dimensions and more, the first kept, the others as one) to 8 bits; all else as it is.

    NAME becomes uint8 [N, K], NAME.scale float32 [N], NAME.shape int64.
    """
    packed = {}
    for name, value in weights.items():
        if value.ndim < 2 or value.numel() < SMALLEST or not value.is_floating_point():
            packed[name] = value.contiguous()
            continue
        rows = value.float().flatten(1)
        scale = rows.abs().amax(-1).clamp(min=1e-12) / 127
        packed[name] = (torch.round(rows / scale[:, None]) + 128).to(torch.uint8)
        packed[name + SCALE] = scale
        packed[name + SHAPE] = torch.tensor(value.shape)
    return packed


def unpack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of pack; weights that are not packed pass through as float32.

    Reads folders of format 2 too, where blocks of 64 along K have a scale each: [N, ceil(K / 64), 64].
    """
    full = {}
    for name, value in weights.items():
        if name.endswith((SCALE, SHAPE)):
            continue
        shape = weights.get(name + SHAPE)
        if shape is not None:
            rows = (value.float() - 128) * weights[name + SCALE][..., None]
            size = shape.tolist()
            value = rows.flatten(1)[:, : math.prod(size[1:])].reshape(size)
        full[name] = value.float() if value.is_floating_point() else value
    return full
