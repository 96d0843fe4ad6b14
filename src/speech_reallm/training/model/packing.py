"""Eight-bit storage of weights, in the layout that the ONNX graphs compute with, so that both share one file.

A matrix [N, K] is kept as signed bytes with a scale for each row: value = byte * scale. x86 processors without VNNI
multiply an unsigned input byte with a signed weight byte, add two neighbouring products in 16 bits and cut off what
does not fit. So no two neighbours of a row add up to more than 128 in magnitude where they have the same sign: sums are
exact on every processor, at the speed of the instruction that is made for them. A scale that is somewhat larger and the
clipping of the few pairs that are still too large cost 1.3 to 1.8 times the squared error of full 8 bits, where 7 bits
would cost 4 times.

A row's scale is applied once, to the sum (export/shared_weights.py); training from such weights loses nothing that the
graphs had not lost.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# smaller ones are not worth it
SMALLEST = 8192
SCALE, SHAPE = ".scale", ".shape"
# of a pair of neighbours with the same sign: 255 * 128 < 2 ** 15
LARGEST_PAIR = 128
# levels of the largest weight of a row that are tried; at 64 no pair is too large
LEVELS = (*range(127, 64, -6), 64)
# rows that are quantised together: what is computed stays in the processor's cache
ROWS = 512


def pack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices (2 dimensions and more, the first kept, the others as one) to 8 bits; all else as it is.

    NAME becomes int8 [N, K], NAME.scale float32 [N], NAME.shape int64. Weights that were packed before come out as
    they were.
    """
    packed = {}
    for name, value in weights.items():
        if value.ndim < 2 or value.numel() < SMALLEST or not value.is_floating_point():
            packed[name] = value.contiguous()
            continue
        full = value.float()
        # products count the taps of a convolution first, and channels are the neighbours
        turned = full.transpose(1, 2) if full.ndim == 3 else full
        parts = [_quantised(rows) for rows in turned.flatten(1).split(ROWS)]
        rows = torch.cat([part[0] for part in parts])
        if full.ndim == 3:
            rows = rows.unflatten(1, turned.shape[1:]).transpose(1, 2).flatten(1)
        packed[name] = rows.contiguous()
        packed[name + SCALE] = torch.cat([part[1] for part in parts])
        packed[name + SHAPE] = torch.tensor(value.shape)
    return packed


def _quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Floats [N, K] -> int8 [N, K] and scales [N], by the scale that leaves the smallest squared error."""
    largest = rows.abs().amax(-1, keepdim=True).clamp(min=1e-12)
    best = torch.full_like(largest, torch.inf)
    result, scales = torch.zeros_like(rows), largest / 127
    for scale in (_former_scale(rows, largest), *(largest / levels for levels in LEVELS)):
        grid = _clipped(torch.round(rows / scale))
        error = torch.addcmul(rows, grid, scale, value=-1).square_().sum(-1, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        result, scales = torch.where(better, grid, result), torch.where(better, scale, scales)
    return result.to(torch.int8), scales[:, 0]


def _former_scale(rows: Tensor, largest: Tensor) -> Tensor:
    """For rows [N, K] that were packed before, the scale [N, 1] with which they come out as they were."""
    some = rows[:, :: max(rows.shape[1] // 16, 1)]
    scale = largest / 127
    for levels in range(126, 63, -1):
        steps = some * (levels / largest)
        on_grid = ((steps - steps.round()).abs() < 1e-3).all(-1, keepdim=True)
        scale = torch.where(on_grid, largest / levels, scale)
    return scale


def _clipped(grid: Tensor) -> Tensor:
    """Whole numbers [N, K] with what pairs of neighbours have too much taken off, from each half of it."""
    even = grid.shape[1] // 2 * 2
    pairs = grid[:, :even].unflatten(1, (-1, 2))
    first, second = pairs.unbind(-1)
    # of different signs they cannot overflow
    excess = ((first + second).abs() - LARGEST_PAIR).clamp_(min=0)
    excess.mul_(first * second > 0)
    half = torch.floor(excess / 2)
    pairs = torch.stack((first - first.sign() * (excess - half), second - second.sign() * half), -1)
    return torch.cat((pairs.flatten(1), grid[:, even:]), 1)


def unpack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of pack; weights that are not packed pass through as float32.

    Reads earlier folders too: bytes there are unsigned, value = (byte - 128) * scale, and in format 2 blocks of 64
    along K have a scale each: [N, ceil(K / 64), 64].
    """
    full = {}
    for name, value in weights.items():
        if name.endswith((SCALE, SHAPE)):
            continue
        shape = weights.get(name + SHAPE)
        if shape is not None:
            zero = 0 if value.dtype == torch.int8 else 128
            rows = (value.float() - zero) * weights[name + SCALE][..., None]
            size = shape.tolist()
            value = rows.flatten(1)[:, : math.prod(size[1:])].reshape(size)
        full[name] = value.float() if value.is_floating_point() else value
    return full
