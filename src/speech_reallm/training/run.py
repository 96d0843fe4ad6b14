"""From a YAML file to a finished run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from .config import RunConfig, to_dict
from .config.files import read_config
from .device import keep_memory, own_device
from .distributed import rank_and_world_size
from .loop import train
from .tasks.base import make_task, task_configs


def load_config(path: str, changes: Sequence[str]) -> RunConfig:
    """The configuration of a training file, with `a.b=value` changes (values are YAML). Raises UserError."""
    return read_config(path, task_configs(), changes)


def run_training(
    path: str,
    overrides: list[str],
    *,
    minutes: float | None = None,
    fresh: bool = False,
    threads: int | None = None,
) -> int:
    """Train as the file says; under torchrun, as one of several processes. Returns an exit code."""
    config = load_config(path, overrides)
    if threads:
        torch.set_num_threads(threads)
    keep_memory()
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if torch.cuda.is_available():
        torch.cuda.set_device(own_device())
    if distributed:
        # the others wait while the first process evaluates or fills a cache; torchrun ends them if it dies
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=24))
    try:
        torch.manual_seed(config.seed)
        task = make_task(config)
        if rank_and_world_size()[0] == 0:
            trained = sum(p.numel() for p in task.model.parameters())
            print(f"{config.task}: {trained / 1e6:.1f} M parameters, output in {config.out}", file=sys.stderr)
            Path(config.out).mkdir(parents=True, exist_ok=True)
            (Path(config.out) / "config.json").write_text(json.dumps(to_dict(config), indent=1) + "\n")
        best = train(config, task, minutes=minutes, fresh=fresh)
        if rank_and_world_size()[0] == 0:
            print("best: " + ", ".join(f"{k} {v:.4g}" for k, v in best.items()), file=sys.stderr)
    finally:
        if distributed:
            dist.destroy_process_group()
    return 0
