"""A run that was stopped and resumed ends exactly as one that was not."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import assert_same, checkpoint_tensors, make, run, tiny
from tones import Corpus
from torch import nn

from speech_reallm.errors import UserError
from speech_reallm.training.loop import train

# whatever is random has to be the same again
AUGMENT = {"volume_db": 6, "time_masks": 1, "time_mask_frames": 5, "feature_masks": 1, "feature_mask_bins": 4}
SPEEDS = {**AUGMENT, "speeds": [0.9, 1.0, 1.1]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "audio": (
        "reallm",
        {"data__augment": SPEEDS, "scheduled_sampling_prob": 0.2, "data__concatenate_prob": 0.5},
    ),
    "frames": ("reallm", {"data__augment": AUGMENT, "cache": True, "piece_noise_prob": 0.1}),
    "spliced": ("reallm", {"cache": True, "text": True, "splice_share": 0.5}),
    "text": ("lm", {}),
    "mixed": ("reallm", {"cache": True, "text": True, "text_share": 0.5}),
    "accumulated": ("ctc", {"data__augment": AUGMENT, "optim__accumulate": 3, "cache": True}),
}


def interrupt(task: nn.Module, call: int) -> None:
    """Ctrl-C during the given forward pass."""
    forward, calls = task.forward, 0

    def counting(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(signal.SIGINT)
        return forward(batch)

    task.forward = counting


def case(name: str, corpus: Corpus, out: Path) -> dict[str, Any]:
    task, changes = CASES[name]
    changes = dict(changes)
    if "cache" in changes:
        changes["cache"] = str(out.parent / "cache")
        changes["optim__encoder_lr_scale"] = 0.0
    if "text" in changes:
        changes["text"] = [str(corpus.text)]
    return tiny(task, corpus, out, **changes)


@pytest.mark.parametrize("name", CASES)
def test_resumed_run_equals_an_uninterrupted_one(name: str, corpus: Corpus, tmp_path: Path) -> None:
    run(case(name, corpus, tmp_path / "whole"))
    stopped = case(name, corpus, tmp_path / "stopped")
    # once within an epoch, once on
    for call in (3, 2):
        config, task = make(stopped)
        interrupt(task, call)
        with pytest.raises(KeyboardInterrupt):
            train(config, task)
    torch.manual_seed(99)
    run(stopped)
    assert_same(checkpoint_tensors(tmp_path / "whole"), checkpoint_tensors(tmp_path / "stopped"))


def test_finished_run_is_left_as_it_is(corpus: Corpus, out: Path) -> None:
    data = tiny("lm", corpus, out, optim__steps=2)
    run(data)
    before = checkpoint_tensors(out)
    run(data)
    assert_same(before, checkpoint_tensors(out))


def test_fresh_starts_anew(corpus: Corpus, out: Path) -> None:
    data = tiny("lm", corpus, out, optim__steps=2)
    run(data)
    before = checkpoint_tensors(out)
    run({**data, "optim": {**data["optim"], "steps": 4}}, fresh=True)
    assert len((out / "log.jsonl").read_text().splitlines()) == 5
    run(data, fresh=True)
    assert_same(before, checkpoint_tensors(out))


def test_average_that_is_switched_on_starts_from_the_trained_weights(corpus: Corpus, out: Path) -> None:
    run(tiny("lm", corpus, out, optim__steps=2, optim__ema=0.0))
    config, task = make(tiny("lm", corpus, out, optim__steps=2, optim__ema=0.999))
    train(config, task)
    tensors = checkpoint_tensors(out)
    for name in [n for n in tensors if n.startswith("ema/")]:
        assert torch.equal(tensors[name], tensors[name.replace("ema/", "model/")])


def test_other_trained_weights_are_refused(corpus: Corpus, out: Path) -> None:
    run(tiny("reallm", corpus, out, optim__steps=1, optim__encoder_lr_scale=0.0))
    with pytest.raises(UserError, match="trains other weights"):
        run(tiny("reallm", corpus, out, optim__steps=2))


def test_damaged_checkpoint_is_named(corpus: Corpus, out: Path) -> None:
    data = tiny("lm", corpus, out, optim__steps=1)
    run(data)
    file = out / "checkpoint" / "step-1" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot resume from .*step-1"):
        run(data)
