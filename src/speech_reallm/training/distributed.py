"""Several processes that train as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .device import own_device


def rank_and_world_size() -> tuple[int, int]:
    """(rank, number of processes)"""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def without_sum(module: nn.Module, more: bool) -> AbstractContextManager[Any]:
    """Where `more` batches of a step follow, gradients of what is inside stay this process's own until the last."""
    return module.no_sync() if more and isinstance(module, DistributedDataParallel) else nullcontext()


def barrier() -> None:
    """Wait for the other processes, where there are any."""
    if rank_and_world_size()[1] > 1:
        dist.barrier()


@contextmanager
def first_process_first() -> Iterator[None]:
    """What is inside is done by the first process, then by the others, which find its files."""
    rank, processes = rank_and_world_size()
    if processes > 1 and rank:
        dist.barrier()
    yield
    if processes > 1 and not rank:
        dist.barrier()


def agree(*values: float) -> list[float]:
    """The greatest value that any process has, for each: clocks and signals differ, what is done must not."""
    if rank_and_world_size()[1] == 1:
        return list(values)
    shared = torch.tensor(values, dtype=torch.float64, device=own_device())
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.tolist()


def summed(value: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in place."""
    if rank_and_world_size()[1] > 1:
        dist.all_reduce(value)
    return value
