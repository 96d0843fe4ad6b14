"""Where training computes: the process's own GPU if the machine has one, else the CPU."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import sys
from typing import Any

import torch
from torch import Tensor, nn

# of malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def own_device() -> torch.device:
    """The GPU that torchrun means this process to have, the first one without torchrun, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def keep_memory() -> None:
    """Keep what is freed for the next step, where the C library is glibc.

    Left alone it returns large blocks to the system, which hands them out again page by page, cleared: a training step
    on a CPU takes a quarter longer.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@functools.cache
def _fast_bf16(kind: str) -> bool:
    """Whether bfloat16 is faster than float32 there: a CPU without instructions for it takes 25 times as long."""
    return kind != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(where: torch.device, bf16: bool) -> torch.autocast:
    """bfloat16 where it was asked for and the machine has instructions for it, else float32."""
    return torch.autocast(where.type, torch.bfloat16, enabled=bf16 and _fast_bf16(where.type))


def moved(batch: Any, where: torch.device) -> Any:
    """The batch with its tensors there; a batch is a tensor or a dataclass with tensors among its fields."""
    if where.type == "cpu":
        return batch
    if isinstance(batch, Tensor):
        return batch.to(where)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        values = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
        tensors = {name: value.to(where) for name, value in values.items() if isinstance(value, Tensor)}
        return dataclasses.replace(batch, **tensors)
    return batch
