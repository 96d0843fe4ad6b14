"""From a YAML file to a finished run."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ..errors import UserError
from .config import TrainConfig, build, read_yaml, to_dict
from .config.presets import with_preset
from .device import keep_memory, own_device
from .loop import train, world


def load_config(path: str, overrides: list[str]) -> TrainConfig:
    """The YAML file with `a.b=value` overrides (values are YAML). Raises UserError."""
    import yaml

    data = read_yaml(path)
    try:
        if isinstance(data, dict) and isinstance(data.get("model"), dict):
            data["model"] = with_preset(data["model"])
        config = build(TrainConfig, data)
    except UserError as err:
        raise UserError(f"{path}: {err}") from None
    if not overrides:
        return config
    data = to_dict(config)
    for item in overrides:
        key, _, value = item.partition("=")
        node: Any = data
        *parents, last = key.split(".")
        for name in parents:
            node = node.get(name) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            raise UserError(f"--set {item}: no such key")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {item}: the value is not valid YAML") from None
        # YAML reads 1e-4 as a string
        node[last] = float(parsed) if isinstance(parsed, str) and isinstance(node[last], float) else parsed
    return build(TrainConfig, data)


def make_task(config: TrainConfig) -> torch.nn.Module:
    if config.task == "distill":
        from .tasks.distill import DistillTask

        return DistillTask(config)
    if config.task == "ctc":
        from .tasks.ctc import CTCTask

        return CTCTask(config)
    if config.task == "lm":
        from .tasks.lm import LMTask

        return LMTask(config)
    from .tasks.reallm import ReaLLMTask

    return ReaLLMTask(config)


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
        if world()[0] == 0:
            trained = sum(p.numel() for p in task.model.parameters())
            print(f"{config.task}: {trained / 1e6:.1f} M parameters, output in {config.out}", file=sys.stderr)
            Path(config.out).mkdir(parents=True, exist_ok=True)
            (Path(config.out) / "config.json").write_text(json.dumps(to_dict(config), indent=1) + "\n")
        best = train(config, task, minutes=minutes, fresh=fresh)
        if world()[0] == 0:
            print("best: " + ", ".join(f"{k} {v:.4g}" for k, v in best.items()), file=sys.stderr)
    finally:
        if distributed:
            dist.destroy_process_group()
    return 0
