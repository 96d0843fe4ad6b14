"""Where training runs: a GPU for each process where there are some, else the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONFORMER, make, run, tiny
from tones import Corpus
from torch import Tensor

from speech_reallm.training.device import moved, own_device

META = torch.device("meta")
AUGMENT = {"time_masks": 1, "time_mask_frames": 5, "feature_masks": 1, "feature_mask_bins": 4}


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device() == torch.device("cuda", 3)
    monkeypatch.delenv("LOCAL_RANK")
    assert own_device() == torch.device("cuda", 0)


def test_batches_stay_as_they_are_on_a_cpu() -> None:
    batch = torch.zeros(2)
    assert moved(batch, torch.device("cpu")) is batch


@pytest.mark.parametrize(
    "task, changes",
    [
        ("reallm", {"piece_noise_prob": 0.1, "data__augment": AUGMENT, "label_smoothing": 0.1}),
        ("reallm", {"model__encoder": CONFORMER, "data__augment": AUGMENT}),
        ("ctc", {"data__augment": AUGMENT}),
        ("lm", {}),
    ],
    ids=["reallm, waveform", "reallm, Conformer", "ctc", "lm"],
)
def test_step_makes_nothing_on_the_cpu(
    task: str, changes: dict[str, Any], corpus: Corpus, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step on the meta device, which computes nothing, but refuses tensors of two devices as a GPU does."""
    _, module = make(tiny(task, corpus, out, **changes))
    batch = next(iter(module.source.batches(0, 0, module.collate)))

    def ctc_loss(log_probs: Tensor, *others: Any, **_: Any) -> Tensor:
        assert {t.device for t in others if isinstance(t, Tensor)} == {META}
        return log_probs.sum()

    monkeypatch.setattr(torch.nn.functional, "ctc_loss", ctc_loss)
    # there is no mixed precision on that device, and asking for it is an error
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    module.to(META)
    loss, metrics = module.train()(moved(batch, META))
    loss.backward()
    found = [loss, *(v for v in metrics.values() if isinstance(v, Tensor))]
    found += [p.grad for p in module.parameters() if p.grad is not None]
    assert {t.device for t in found} == {META}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("task", ["reallm", "ctc", "lm"])
def test_run_on_a_gpu(task: str, corpus: Corpus, tmp_path: Path) -> None:
    data = tiny(task, corpus, tmp_path / "run", optim__bf16=True)
    if task != "lm":
        data["data"]["dev"] = str(corpus.plain)
    run(data)
    data["optim"]["steps"] += 2
    best = run(data)
    assert best["score"] >= 0
