"""Whatever happens while a checkpoint is written, a whole one is left."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import children
import pytest
import torch
from safetensors import SafetensorError
from tiny import assert_same, checkpoint_tensors, losses, make, run, tiny, write_file
from tones import Corpus

from speech_reallm.training import checkpoint
from speech_reallm.training.checkpoint import latest, load_checkpoint, recover, save_checkpoint, save_folder
from speech_reallm.training.config import OptimConfig
from speech_reallm.training.loop import train
from speech_reallm.training.optimiser import parameter_groups


class Killed(BaseException):
    """Nothing may catch this, as nothing can catch a kill."""


def die_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die before the given one of the calls that change the disk."""
    calls = 0

    def mortal(function: Callable) -> Callable:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            return function(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(checkpoint, "save_file", mortal(checkpoint.save_file))
    monkeypatch.setattr(os, "replace", mortal(os.replace))
    monkeypatch.setattr(os, "fsync", mortal(os.fsync))


@pytest.mark.parametrize("step", [2, 3], ids=["same step again", "next step"])
def test_death_between_any_two_calls_leaves_a_whole_checkpoint(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(parameter_groups(model, OptimConfig(steps=1, lr=0.1)), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for call in range(1, 100):
        root = tmp_path / str(call)
        for earlier in (1, 2):
            save_checkpoint(root, earlier, model, optimizer, {}, {})
        with monkeypatch.context() as patch:
            die_at(call, patch)
            try:
                save_checkpoint(root, step, model, optimizer, {}, {})
                died = False
            except Killed:
                died = True
        recover(root)
        newest = latest(root)
        assert newest is not None
        assert load_checkpoint(newest, model, optimizer)[1]["step"] in (2, step)
        if not died:
            assert newest.name == f"step-{step}"
            break
    assert 10 < call < 99


def test_death_between_any_two_calls_leaves_the_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in range(1, 100):
        folder = tmp_path / str(call) / "best"
        save_folder(folder, {"a.json": 1, "b.json": 1})
        with monkeypatch.context() as patch:
            die_at(call, patch)
            try:
                save_folder(folder, {"a.json": 2, "b.json": 2})
                died = False
            except Killed:
                died = True
        recover(folder.parent)
        assert (folder / "a.json").read_text() == (folder / "b.json").read_text()
        if not died:
            break
    assert 5 < call < 99


def test_killed_at_random_moments_it_loses_at_most_the_interval(
    corpus: Corpus, tmp_path: Path, processes: ForkServerContext
) -> None:
    """Every step is saved, so most kills hit a checkpoint that is being written."""
    rng = random.Random(1)
    out = tmp_path / "killed"
    data = tiny("lm", corpus, out, save_minutes=0.0, optim__steps=2000)
    path = write_file(tmp_path / "run.yaml", data)
    for _ in range(4):
        seen = len(losses(out)) if (out / "log.jsonl").exists() else 0
        child = processes.Process(target=children.command, args=("train", path))
        child.start()
        wait_for(lambda seen=seen: (out / "log.jsonl").exists() and len(losses(out)) > seen + 2, child)
        time.sleep(rng.random() / 10)
        os.kill(child.pid, 9)
        child.join()
        done = steps_logged(out)[-1]
        newest = latest(out / "checkpoint")
        assert newest is not None
        assert int(newest.name[5:]) >= done - 1
    # the steps since the last checkpoint were done twice, with the same loss
    by_step: dict[int, set[float]] = {}
    for step, loss in zip(steps_logged(out), losses(out), strict=True):
        by_step.setdefault(step, set()).add(loss)
    assert all(len(found) == 1 for found in by_step.values())
    assert sorted(by_step) == list(range(1, done + 1))


def steps_logged(out: Path) -> list[int]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if row["kind"] == "train"]


def wait_for(condition: Callable[[], bool], child: Any) -> None:
    while not condition():
        assert child.is_alive()
        time.sleep(0.01)


def test_interrupt_saves_and_ends_with_130(
    corpus: Corpus, tmp_path: Path, processes: ForkServerContext
) -> None:
    out = tmp_path / "interrupted"
    path = write_file(tmp_path / "run.yaml", tiny("lm", corpus, out, optim__steps=100_000))
    child = processes.Process(target=children.command, args=("train", path))
    child.start()
    wait_for(lambda: (out / "log.jsonl").exists() and len(losses(out)) > 2, child)
    os.kill(child.pid, 2)
    child.join()
    assert child.exitcode == 130, Path(path).with_suffix(".log").read_text()
    newest = latest(out / "checkpoint")
    assert newest is not None
    assert int(newest.name[5:]) == steps_logged(out)[-1]


def test_interrupt_between_two_epochs_ends_the_run(corpus: Corpus, out: Path) -> None:
    config, task = make(tiny("lm", corpus, out, optim__steps=1000))
    batches = task.source.batches

    def interrupted(number: int, start: int, collate: Any) -> Any:
        if number == 1:
            signal.raise_signal(signal.SIGINT)
        return batches(number, start, collate)

    task.source.batches = interrupted
    with pytest.raises(KeyboardInterrupt):
        train(config, task)
    newest = latest(out / "checkpoint")
    assert newest is not None
    assert int(newest.name[5:]) == steps_logged(out)[-1] == task.source.steps(0)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device")]
)
def test_full_disk_is_a_warning(
    error: Exception,
    corpus: Corpus,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    run(tiny("lm", corpus, out, optim__steps=3))
    before = checkpoint_tensors(out)
    best = (out / "best" / "model.safetensors").read_bytes()

    def full(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        config, task = make(tiny("lm", corpus, out, optim__steps=8, save_minutes=0.0))
        train(config, task)
    assert len(losses(out)) == 8
    assert "No space left on device" in capsys.readouterr().err
    assert_same(before, checkpoint_tensors(out))
    assert (out / "best" / "model.safetensors").read_bytes() == best
    # no half-written folder takes up what space there is
    assert sorted(p.name for p in (out / "checkpoint").iterdir()) == ["step-3"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_log_that_cannot_be_written_is_a_warning(
    corpus: Corpus, out: Path, capsys: pytest.CaptureFixture
) -> None:
    out.mkdir()
    (out / "log.jsonl").symlink_to("/dev/full")
    run(tiny("lm", corpus, out, optim__steps=2))
    assert "cannot write the log" in capsys.readouterr().err
    assert latest(out / "checkpoint") == out / "checkpoint" / "step-2"
