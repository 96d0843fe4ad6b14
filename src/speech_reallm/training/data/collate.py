"""From examples to padded tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


def present(values: Iterable[T | None]) -> list[T]:
    """The values of a batch's examples, all of which must have one. Raises ValueError."""
    found = list(values)
    kept = [value for value in found if value is not None]
    if len(kept) != len(found):
        raise ValueError("the examples of a batch must be of one kind")
    return kept


def pad_rows(rows: Sequence[np.ndarray]) -> Tensor:
    """Rows float [n_i] or [n_i, D] of different lengths -> float32 [B, N] or [B, N, D], zeros behind each."""
    padded = np.zeros((len(rows), max(map(len, rows), default=0), *rows[0].shape[1:]), np.float32)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)


def pad_integers(rows: Sequence[np.ndarray], value: int | bool) -> Tensor:
    """Rows [n_i] of integers or booleans -> [B, N], `value` behind each."""
    tensors = [torch.from_numpy(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def pad_audio(audio: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Samples float32 [n_i] each -> audio [B, N] and lengths [B] in samples."""
    return pad_rows(audio), torch.tensor([len(a) for a in audio])


def pad_to_chunks(audio: Tensor, chunk_samples: int, extra_chunks: int) -> Tensor:
    """Zeros up to a whole number of chunks and extra_chunks more. [B, N] -> [B, (C + extra) * S]"""
    chunks = -(-audio.shape[1] // chunk_samples) + extra_chunks
    return torch.nn.functional.pad(audio, (0, chunks * chunk_samples - audio.shape[1]))
