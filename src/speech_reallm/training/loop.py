"""The training loop: one for all tasks, one process or several.

A step's randomness is seeded by (seed, step, rank), the data by (seed, epoch), so a run that was killed and resumes
ends as an uninterrupted one would (unless `--minutes` makes the schedule follow the clock).
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError
from .checkpoint import latest, load_checkpoint, recover, save_checkpoint, save_folder
from .config import RunConfig, to_dict
from .device import autocast, device_of, moved
from .distributed import agree, barrier, rank_and_world_size, summed, without_sum
from .optimiser import L2SP, Ema, lr_scale, make_optimiser, parameter_groups
from .run_log import RunLog
from .signals import OrderlyStop
from .tasks.base import Task

# what an epoch's iterator gives when it has no more batches
END = object()
# steps running whose loss is not finite, and epochs running without a batch, after which a run gives up
MOST_BAD_STEPS, MOST_EMPTY_EPOCHS = 10, 100


class _Forward(nn.Module):
    """task(batch), or a zero with gradients where this process has no share of the batch but others have."""

    def __init__(self, task: Task):
        super().__init__()
        self.task = task

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Any]]:
        if batch is None:
            zeros = [p.sum() * 0.0 for p in self.task.parameters() if p.requires_grad]
            return torch.stack(zeros).sum(), {}
        return self.task(batch)


class Trainer:
    """Trains a task into config.out, resuming from its last checkpoint."""

    def __init__(self, config: RunConfig, task: Task, *, minutes: float | None = None, fresh: bool = False):
        """minutes, fresh: see train(). Raises UserError where nothing is to be trained, or for a damaged checkpoint."""
        self.config, self.task, self.optim, self.minutes = config, task, config.optim, minutes
        self.rank, self.processes = rank_and_world_size()
        self.out = Path(config.out)
        self.checkpoints = self.out / "checkpoint"
        self.groups = parameter_groups(task.model, self.optim)
        if not self.groups:
            raise UserError("nothing to train: every weight is frozen")
        self.l2_sp = L2SP(self.groups)
        self.optimiser = make_optimiser(self.groups, self.optim)
        self.step = 0
        self.state: dict[str, Any] = {
            "epoch": 0, "batch": 0, "seconds": 0.0, "best": None, "audio_seconds": 0.0
        }  # fmt: skip
        if self.rank == 0:
            self._prepare_folder(fresh)
        barrier()
        averaged = self._resume()
        # weights that the checkpoint has no average of start from what they are
        self.ema = Ema(task.model, self.optim.ema)
        for name, value in self.ema.values.items():
            value.copy_(averaged.get(name, value))
        self.module: nn.Module = _Forward(task)
        if self.processes > 1:
            self.module = DistributedDataParallel(self.module, find_unused_parameters=True)
        self.log = RunLog(self.out, self.rank == 0, self.optim.steps, self.step)
        self.begun = time.monotonic() - self.state["seconds"]
        self.last_save = self.last_eval = time.monotonic()
        self.bad_steps = 0
        self.stopping = False
        self.window = _Window()

    def _prepare_folder(self, fresh: bool) -> None:
        if fresh:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            (self.out / "log.jsonl").unlink(missing_ok=True)
        recover(self.out)
        recover(self.checkpoints)

    def _resume(self) -> dict[str, Tensor]:
        """Restore the newest checkpoint, if there is one; returns its averaged weights."""
        found = latest(self.checkpoints)
        if found is None:
            return {}
        averaged, restored = load_checkpoint(found, self.task.model, self.optimiser)
        self.step = restored.pop("step")
        self.state |= restored
        if self.rank == 0:
            print(f"resumed from {found}", file=sys.stderr)
        return averaged

    def run(self) -> dict[str, Any]:
        """Train to the end; returns the best evaluation. See train() for what is raised."""
        self.task.train()
        ended, empty_epochs = False, 0
        with OrderlyStop() as stop:
            try:
                while self.step < self.optim.steps and not ended:
                    ended, exhausted = self._epoch(stop)
                    if not exhausted:
                        continue
                    empty_epochs = 0 if self.state["batch"] else empty_epochs + 1
                    if empty_epochs == MOST_EMPTY_EPOCHS:
                        raise UserError("there is nothing to train on: data.weights leave no utterance")
                    self.state["epoch"] += 1
                    self.state["batch"] = 0
                self._save()
                if not self.stopping:
                    self._evaluate()
                    self._save()
            finally:
                self.log.close()
        if self.stopping:
            raise KeyboardInterrupt
        return self.state["best"] or {}

    def _epoch(self, stop: OrderlyStop) -> tuple[bool, bool]:
        """Steps on the batches of the epoch that are left; returns whether the run and the epoch ended."""
        batches = self.task.source.batches(self.state["epoch"], self.state["batch"], self.task.collate)
        while self.step < self.optim.steps:
            elapsed = time.monotonic() - self.begun
            by_clock = elapsed / 60 / self.minutes if self.minutes else 0.0
            progress, stopping = agree(max(self.step / self.optim.steps, by_clock), bool(stop.signal))
            self.stopping = bool(stopping)
            if progress >= 1.0 or self.stopping:
                return True, False
            accumulated, exhausted = self._take(batches)
            if accumulated:
                self._train(accumulated, progress)
                self._when_due()
            if exhausted:
                return False, True
        return False, False

    def _take(self, batches: Iterator[Any]) -> tuple[list[Any], bool]:
        """The batches of one step, and whether there are no more."""
        accumulated: list[Any] = []
        for _ in range(self.optim.accumulate):
            batch = next(batches, END)
            if batch is END:
                return accumulated, True
            self.state["batch"] += 1
            accumulated.append(batch)
        return accumulated, False

    def _train(self, batches: list[Any], progress: float) -> None:
        """One step, unless its loss is not finite, and its line in the log."""
        for index, group in enumerate(self.optimiser.param_groups):
            scale = self.groups[index]["scale"] * lr_scale(self.optim, self.step, progress)
            group["lr"] = self.optim.lr * scale
        torch.manual_seed(hash((self.config.seed, self.step, self.rank)) % 2**31)
        values = self._optimise(batches)
        if math.isfinite(values["loss"]):
            self.bad_steps = 0
            self.step += 1
            self.ema.update(self.step)
        else:
            self.bad_steps += 1
            if self.bad_steps >= MOST_BAD_STEPS:
                raise UserError(
                    f"the loss has not been finite for {MOST_BAD_STEPS} steps: lower optim.lr, or check the data "
                    "for NaN"
                )
        self.window.add(values)
        if self.step % self.config.log_steps == 0:
            self.log.write(self.step, "train", self.window.means(self.optimiser.param_groups[-1]["lr"]))
            self.window = _Window()
            estimate = int(self.step / max(progress, 1e-6)) if self.minutes else self.optim.steps
            self.log.advance(self.step, min(self.optim.steps, max(self.step, estimate)))

    def _optimise(self, batches: list[Any]) -> dict[str, float]:
        """One optimiser step over the accumulated batches: the mean loss over all their targets, on all processes."""
        self.optimiser.zero_grad(set_to_none=True)
        where = device_of(self.task)
        sums: list[Tensor] = []
        metrics: dict[str, float] = {}
        counts = [float(b.num_targets) if b is not None else 0.0 for b in batches]
        total = float(summed(torch.tensor(counts, device=where)).sum())
        for index, batch in enumerate(batches):
            with without_sum(self.module, index < len(batches) - 1):
                with autocast(where, self.optim.bf16):
                    loss_sum, extra = self.module(moved(batch, where))
                # DistributedDataParallel averages gradients over processes; the mean is over the global batch
                (loss_sum * (self.processes / max(total, 1.0))).backward()
            sums.append(loss_sum.detach())
            for name, value in extra.items():
                metrics[name] = metrics.get(name, 0.0) + float(value) / len(batches)
        loss = summed(torch.stack(sums).sum())
        norm = torch.nn.utils.clip_grad_norm_(
            [p for g in self.optimiser.param_groups for p in g["params"]], self.optim.clip
        )
        if math.isfinite(float(norm)) and math.isfinite(float(loss)):
            self.optimiser.step()
            self.l2_sp.pull(self.optimiser.param_groups)
        else:
            loss = torch.tensor(float("nan"))
        return {"loss": float(loss) / max(total, 1.0), "grad_norm": float(norm), **metrics}

    def _when_due(self) -> None:
        """Save and evaluate when it is time to."""
        now = time.monotonic()
        save_due, eval_due = agree(
            (now - self.last_save) / 60 > self.config.save_minutes,
            (now - self.last_eval) / 60 > self.config.eval_minutes,
        )
        if save_due:
            self._save()
        if eval_due:
            self._evaluate()

    def _save(self) -> None:
        self.last_save = time.monotonic()
        if self.rank:
            return
        self.state["seconds"] = time.monotonic() - self.begun
        try:
            save_checkpoint(
                self.checkpoints, self.step, self.task.model, self.optimiser, self.ema.values, self.state
            )
        except OSError as err:
            self.log.warn(f"{err}; training goes on, the previous checkpoint stands")

    def _evaluate(self) -> None:
        """By the first process, with the averaged weights; the best ones are kept in best/."""
        self.task.eval()
        if self.rank == 0:
            with self.ema.swapped(), torch.no_grad():
                result = self.task.evaluate()
                minutes = (time.monotonic() - self.begun) / 60
                self.log.write(self.step, "dev", {**result, "minutes": minutes})
                best = self.state["best"]
                if best is None or result["score"] <= best["score"]:
                    self.state["best"] = {**result, "step": self.step}
                    self._keep_best()
        barrier()
        self.task.train()
        self.last_eval = time.monotonic()

    def _keep_best(self) -> None:
        info = {"config.json": to_dict(self.config), "result.json": self.state["best"]}
        try:
            save_folder(self.out / "best", {**self.task.artifacts(), **info})
        except OSError as err:
            self.log.warn(str(err))


class _Window:
    """Means of what the steps since the last line of the log reported."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps, self.start = 0, time.monotonic()

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1

    def means(self, lr: float) -> dict[str, float]:
        seconds = time.monotonic() - self.start
        means = {k: v / self.steps for k, v in self.sums.items()}
        return {**means, "lr": lr, "steps_per_s": self.steps / seconds}


def train(
    config: RunConfig, task: Task, *, minutes: float | None = None, fresh: bool = False
) -> dict[str, Any]:
    """Train `task` into config.out, resuming from its last checkpoint. Returns the best evaluation.

    With `minutes` the run ends after that much training in all (earlier, resumed parts counted in), and the
    learning rate follows the clock so that it has decayed by then. Raises KeyboardInterrupt after saving when it was
    interrupted, UserError when the loss is not finite several times running.
    """
    return Trainer(config, task, minutes=minutes, fresh=fresh).run()
