"""The training loop: one for all tasks, one process or several.

A step's randomness is seeded by (seed, step, rank), the data by (seed, epoch), so a run that was killed and resumes
ends as an uninterrupted one would (unless `--minutes` makes the schedule follow the clock).
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError
from .checkpoint import latest, load_checkpoint, recover, save_checkpoint, save_folder
from .config import OptimConfig, TrainConfig, to_dict
from .device import autocast, device_of, moved, own_device

# what an epoch's iterator gives when it has no more batches
END = object()


class Task(Protocol):
    """What the loop needs of a task; it is an nn.Module whose forward(batch) gives (loss sum, metrics).

    A batch is this process's share of the global one, None where that is too small to have one; count(batch)
    is the number of targets that the loss is summed over.
    """

    model: nn.Module

    def epoch(self, epoch: int, start: int) -> Iterator[Any]: ...
    def count(self, batch: Any) -> int: ...
    def steps_in_epoch(self, epoch: int) -> int: ...
    def evaluate(self) -> dict[str, float]: ...
    def files(self) -> dict[str, Any]: ...


def world() -> tuple[int, int]:
    """(rank, number of processes)"""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@contextmanager
def first_process_first() -> Iterator[None]:
    """What is inside is done by the first process, then by the others, which find its files."""
    rank, processes = world()
    if processes > 1 and rank:
        dist.barrier()
    yield
    if processes > 1 and not rank:
        dist.barrier()


def agree(*values: float) -> list[float]:
    """The greatest value that any process has, for each: clocks and signals differ, what is done must not."""
    if world()[1] == 1:
        return list(values)
    shared = torch.tensor(values, dtype=torch.float64, device=own_device())
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.tolist()


def lr_scale(optim: OptimConfig, step: int, progress: float) -> float:
    """Linear warm-up, then cosine decay to final_lr_scale (or constant)."""
    warm = min(1.0, (step + 1) / max(1, optim.warmup_steps))
    if optim.schedule == "constant":
        return warm
    low = optim.final_lr_scale
    return warm * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def parameter_groups(model: nn.Module, optim: OptimConfig) -> list[dict]:
    """Learning rates of the encoder and of what is fast; weight decay on matrices alone, or an anchor instead."""
    groups: dict[tuple[float, float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        encoder = name.startswith("encoder.")
        if (encoder and optim.encoder_lr_scale == 0) or any(part in name for part in optim.frozen):
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        scale = optim.encoder_lr_scale if encoder else 1.0
        anchor = optim.anchor
        if any(part in name for part in optim.fast):
            scale, anchor = scale * optim.fast_lr_scale, 0.0
        decay = optim.weight_decay if parameter.ndim >= 2 and not anchor else 0.0
        groups.setdefault((scale, decay, anchor), []).append(parameter)
    return [
        {"params": p, "scale": s, "weight_decay": d, "anchor": a}
        for (s, d, a), p in sorted(groups.items(), key=lambda g: g[0])
    ]


class Anchors:
    """Where the weights began, and the pull back there of those groups that have an `anchor`."""

    def __init__(self, groups: list[dict]):
        self.origins = [[p.detach().clone() for p in g["params"]] if g["anchor"] else [] for g in groups]

    @torch.no_grad()
    def pull(self, groups: list[dict]) -> None:
        for group, origin in zip(groups, self.origins, strict=True):
            if origin:
                torch._foreach_lerp_(group["params"], origin, min(1.0, group["lr"] * group["anchor"]))


class Ema:
    """Exponential moving average of the trained weights, with the usual ramp at the start."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = model
        self.values = (
            {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad} if decay else {}
        )

    def update(self, step: int) -> None:
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            torch._foreach_lerp_(list(self.values.values()), [parameters[n] for n in self.values], 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The averaged weights in the model's place."""
        parameters = dict(self.model.named_parameters())
        kept = {n: parameters[n].detach().clone() for n in self.values}
        with torch.no_grad():
            for n, value in self.values.items():
                parameters[n].copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for n, value in kept.items():
                    parameters[n].copy_(value)


class Log:
    """JSON lines, TensorBoard and a progress bar; silent on all processes but the first."""

    def __init__(self, out: Path, enabled: bool, total: int, start: int):
        self.enabled = enabled
        if not enabled:
            return
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        out.mkdir(parents=True, exist_ok=True)
        self.file = (out / "log.jsonl").open("a", encoding="utf-8")
        self.board = SummaryWriter(str(out / "tensorboard"))
        self.bar = tqdm(
            total=total,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            mininterval=2 if sys.stderr.isatty() else 60,
        )

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        if not self.enabled:
            return
        text = "  ".join(f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, (int, float)))
        if kind == "train":
            self.bar.set_postfix_str(text, refresh=False)
        else:
            self.bar.write(f"step {step} {kind}: {text}", file=sys.stderr)
        try:
            self.file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
            self.file.flush()
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(f"{kind}/{name}", value, step)
        except OSError as err:
            self.warn(f"cannot write the log: {err.strerror or err}")

    def warn(self, message: str) -> None:
        if self.enabled:
            self.bar.write(f"warning: {message}", file=sys.stderr)

    def advance(self, step: int, total: int) -> None:
        if self.enabled:
            self.bar.total = total
            self.bar.update(step - self.bar.n)

    def close(self) -> None:
        if self.enabled:
            self.bar.close()
            with suppress(OSError):
                self.board.close()
            with suppress(OSError):
                self.file.close()


class _Forward(nn.Module):
    """task(batch), or a zero with gradients where this process has no share of the batch but others have."""

    def __init__(self, task: nn.Module):
        super().__init__()
        self.task = task

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Any]]:
        if batch is None:
            return sum(p.sum() * 0.0 for p in self.task.parameters() if p.requires_grad), {}
        return self.task(batch)


class _Stop:
    """SIGINT and SIGTERM ask for an orderly end: the step is finished and a checkpoint written."""

    def __init__(self) -> None:
        self.signal = 0
        self.when = 0.0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):  # not the main thread
                self.previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: object) -> None:
        # torchrun passes on a Ctrl-C that the terminal has sent to everyone already
        if self.signal and time.monotonic() - self.when > 1:
            raise KeyboardInterrupt
        if self.signal:
            return
        self.signal, self.when = number, time.monotonic()
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def train(
    config: TrainConfig, task: nn.Module, *, minutes: float | None = None, fresh: bool = False
) -> dict[str, Any]:
    """Train `task` into config.out, resuming from its last checkpoint. Returns the best evaluation.

    With `minutes` the run ends after that much training in all (earlier, resumed parts counted in), and the
    learning rate follows the clock so that it has decayed by then. Raises KeyboardInterrupt after saving when it was
    interrupted, UserError when the loss is not finite several times running.
    """
    rank, processes = world()
    out = Path(config.out)
    optim = config.optim
    groups = parameter_groups(task.model, optim)
    if not groups:
        raise UserError("nothing to train: every weight is frozen")
    anchors = Anchors(groups)
    optimizer = torch.optim.AdamW(
        groups, lr=optim.lr, betas=optim.betas, eps=1e-9 if not optim.bf16 else 1e-8
    )
    state = {"epoch": 0, "batch": 0, "seconds": 0.0, "best": None, "audio_seconds": 0.0}
    step = 0
    checkpoints = out / "checkpoint"
    if fresh and rank == 0:
        shutil.rmtree(checkpoints, ignore_errors=True)
        (out / "log.jsonl").unlink(missing_ok=True)
    if rank == 0:
        recover(out)
        recover(checkpoints)
    if processes > 1:
        dist.barrier()
    averaged: dict[str, Tensor] = {}
    if found := latest(checkpoints):
        averaged, restored = load_checkpoint(found, task.model, optimizer)
        step = restored.pop("step")
        state |= restored
        if rank == 0:
            print(f"resumed from {found}", file=sys.stderr)
    # weights that the checkpoint has no average of start from what they are
    ema = Ema(task.model, optim.ema)
    for name, value in ema.values.items():
        value.copy_(averaged.get(name, value))
    module: nn.Module = _Forward(task)
    if processes > 1:
        module = DistributedDataParallel(module, find_unused_parameters=True)
    log = Log(out, rank == 0, optim.steps, step)
    begun = time.monotonic() - state["seconds"]
    last_save = last_eval = time.monotonic()

    def save() -> None:
        nonlocal last_save
        last_save = time.monotonic()
        if rank:
            return
        state["seconds"] = time.monotonic() - begun
        try:
            save_checkpoint(checkpoints, step, task.model, optimizer, ema.values, state)
        except OSError as err:
            log.warn(f"{err}; training goes on, the previous checkpoint stands")

    def evaluate() -> None:
        nonlocal last_eval
        task.eval()
        if rank == 0:
            with ema.swapped(), torch.no_grad():
                result = task.evaluate()
                log.write(step, "dev", {**result, "minutes": (time.monotonic() - begun) / 60})
                if state["best"] is None or result["score"] <= state["best"]["score"]:
                    state["best"] = {**result, "step": step}
                    info = {"config.json": to_dict(config), "result.json": state["best"]}
                    try:
                        save_folder(out / "best", {**task.files(), **info})
                    except OSError as err:
                        log.warn(str(err))
        if processes > 1:
            dist.barrier()
        task.train()
        last_eval = time.monotonic()

    task.train()
    bad = empty = 0
    stopping = ended = False
    window: dict[str, float] = {}
    window_start, window_steps = time.monotonic(), 0
    with _Stop() as stop:
        try:
            while step < optim.steps and not ended:
                batches = task.epoch(state["epoch"], state["batch"])
                exhausted = False
                while step < optim.steps:
                    elapsed = time.monotonic() - begun
                    progress = max(step / optim.steps, elapsed / 60 / minutes if minutes else 0.0)
                    progress, stopping = agree(progress, bool(stop.signal))
                    ended = progress >= 1.0 or bool(stopping)
                    if ended:
                        break
                    for index, group in enumerate(optimizer.param_groups):
                        group["lr"] = optim.lr * groups[index]["scale"] * lr_scale(optim, step, progress)
                    torch.manual_seed(hash((config.seed, step, rank)) % 2**31)
                    accumulated = []
                    for _ in range(optim.accumulate):
                        batch = next(batches, END)
                        if batch is END:
                            exhausted = True
                            break
                        state["batch"] += 1
                        accumulated.append(batch)
                    if not accumulated:
                        break
                    values = _step(module, task, optimizer, anchors, optim, accumulated, processes)
                    if not math.isfinite(values["loss"]):
                        bad += 1
                        if bad >= 10:
                            raise UserError(
                                "the loss has not been finite for 10 steps: lower optim.lr, or check the data for NaN"
                            )
                    else:
                        bad = 0
                        step += 1
                        ema.update(step)
                    for name, value in values.items():
                        window[name] = window.get(name, 0.0) + value
                    window_steps += 1
                    if step % config.log_steps == 0:
                        mean = {k: v / window_steps for k, v in window.items()}
                        mean["lr"] = optimizer.param_groups[-1]["lr"]
                        mean["steps_per_s"] = window_steps / (time.monotonic() - window_start)
                        log.write(step, "train", mean)
                        window, window_steps, window_start = {}, 0, time.monotonic()
                        estimate = int(step / max(progress, 1e-6)) if minutes else optim.steps
                        log.advance(step, min(optim.steps, max(step, estimate)))
                    now = time.monotonic()
                    due = (
                        (now - last_save) / 60 > config.save_minutes,
                        (now - last_eval) / 60 > config.eval_minutes,
                    )
                    save_due, eval_due = agree(*due)
                    if save_due:
                        save()
                    if eval_due:
                        evaluate()
                    if exhausted:
                        break
                if exhausted:
                    empty = 0 if state["batch"] else empty + 1
                    if empty == 100:
                        raise UserError("there is nothing to train on: data.weights leave no utterance")
                    state["epoch"] += 1
                    state["batch"] = 0
            save()
            if not stopping:
                evaluate()
                save()
        finally:
            log.close()
    if stopping:
        raise KeyboardInterrupt
    return state["best"] or {}


def _step(
    module: nn.Module,
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    anchors: Anchors,
    optim: OptimConfig,
    batches: list,
    processes: int,
) -> dict[str, float]:
    """One optimiser step over the accumulated batches: the mean loss over all their targets, on all processes."""
    optimizer.zero_grad(set_to_none=True)
    where = device_of(task)
    sums: list[Tensor] = []
    metrics: dict[str, float] = {}
    counts = torch.tensor([float(task.count(b)) if b is not None else 0.0 for b in batches], device=where)
    if processes > 1:
        dist.all_reduce(counts)
    total = float(counts.sum())
    for batch in batches:
        with autocast(where, optim.bf16):
            loss_sum, extra = module(moved(batch, where))
        # DistributedDataParallel averages gradients over processes; the mean is over the global batch
        (loss_sum * (processes / max(total, 1.0))).backward()
        sums.append(loss_sum.detach())
        for name, value in extra.items():
            metrics[name] = metrics.get(name, 0.0) + float(value) / len(batches)
    loss = torch.stack(sums).sum()
    if processes > 1:
        dist.all_reduce(loss)
    norm = torch.nn.utils.clip_grad_norm_(
        [p for g in optimizer.param_groups for p in g["params"]], optim.clip
    )
    if math.isfinite(float(norm)) and math.isfinite(float(loss)):
        optimizer.step()
        anchors.pull(optimizer.param_groups)
    else:
        loss = torch.tensor(float("nan"))
    return {"loss": float(loss) / max(total, 1.0), "grad_norm": float(norm), **metrics}
