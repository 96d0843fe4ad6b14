"""Checkpoints that survive a kill at any moment: written aside, flushed to disk, then renamed.

A checkpoint is a folder `step-N` of safetensors and JSON; nothing is pickled. A folder that was being written
when the process died keeps its temporary name and is never read.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import UserError
from .weights import renamed_weights


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically."""
    temporary = path.with_name(path.name + ".part")
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary)
    _sync(temporary)
    os.replace(temporary, path)


def save_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    _sync(temporary)
    os.replace(temporary, path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_folder(folder: Path, files: dict[str, Any]) -> None:
    """Write a folder of files (dict of tensors -> safetensors, else JSON), whole or not at all.

    Raises OSError (disk full, say); what was there before stays.
    """
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name, content in files.items():
            if name.endswith(".safetensors"):
                save_tensors(temporary / name, content)
            elif isinstance(content, bytes):
                (temporary / name).write_bytes(content)
            else:
                save_json(temporary / name, content)
        _sync(temporary)
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as err:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"cannot write {folder}: {err}") from err


def recover(root: Path) -> None:
    """Put back a folder below `root` whose replacement was cut off between the two renames."""
    for old in root.glob(".*.old"):
        folder = root / old.name[1 : -len(".old")]
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, folder)


def latest(root: Path) -> Path | None:
    """The newest complete checkpoint under `root`, or None."""
    found = [p for p in root.glob("step-*") if (p / "state.json").exists()]
    return max(found, key=lambda p: int(p.name[5:]), default=None)


def save_checkpoint(
    root: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: dict[str, Tensor],
    state: dict,
) -> None:
    """Write `root/step-N` and drop all older ones but one."""
    moments, scalars = {}, {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim:
                moments[f"{index}.{name}"] = value
            else:
                scalars[f"{index}.{name}"] = float(value)
    files = {
        "model.safetensors": dict(model.state_dict()),
        "optimizer.safetensors": moments,
        "ema.safetensors": ema,
        "state.json": {**state, "step": step, "scalars": scalars, "trained": _shapes(optimizer)},
    }
    save_folder(root / f"step-{step}", files)
    kept = sorted((p for p in root.glob("step-*")), key=lambda p: int(p.name[5:]))
    for old in kept[:-2]:
        shutil.rmtree(old, ignore_errors=True)


def _shapes(optimizer: torch.optim.Optimizer) -> list[list[list[int]]]:
    """What is trained: the optimizer's state is kept by number, and might fit other weights by chance."""
    return [[list(p.shape) for p in group["params"]] for group in optimizer.param_groups]


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict]:
    """Restore model and optimizer; returns the averaged weights and the loop's state."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        model.load_state_dict(renamed_weights(load_file(folder / "model.safetensors")))
        moments = load_file(folder / "optimizer.safetensors")
        ema = renamed_weights(load_file(folder / "ema.safetensors"))
    except (OSError, ValueError, SafetensorError, RuntimeError) as err:
        raise UserError(
            f"cannot resume from {folder} ({str(err)[:150]}); delete it to use the one before"
        ) from None
    if state.pop("trained", _shapes(optimizer)) != _shapes(optimizer):
        raise UserError(f"{folder} trains other weights: start anew with --fresh, or name another `out`")
    restored: dict[int, dict[str, Tensor]] = {}
    for key, value in [*moments.items(), *((k, torch.tensor(v)) for k, v in state.pop("scalars").items())]:
        index, name = key.split(".", 1)
        restored.setdefault(int(index), {})[name] = value
    full = optimizer.state_dict()
    full["state"] = restored
    optimizer.load_state_dict(full)
    return ema, state
