"""Two processes train as one does, on the same global batches."""

from __future__ import annotations

import socket
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import children
import pytest
import torch
from tiny import checkpoint_tensors, losses, run, tiny, write_file
from tones import Corpus

from speech_reallm.training.loop import _Forward

# nothing random in the model: its random numbers are each process's own
PLAIN = {"optim__steps": 6, "optim__lr": 5e-4}


def two_processes(data: dict[str, Any], folder: Path, context: ForkServerContext) -> None:
    path = write_file(folder / "run.yaml", data)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    ranks = [
        context.Process(target=children.ranked_command, args=(rank, 2, port, "train", path))
        for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [p.exitcode for p in ranks] == [0, 0]


@pytest.mark.parametrize(
    "task, changes",
    [
        ("reallm", {"model__encoder__dropout": 0.0, "model__decoder__dropout": 0.0, "optim__accumulate": 2}),
        # batches of one or two utterances: often there is nothing for the second process
        ("ctc", {"ctc__encoder__dropout": 0.0, "data__batch_seconds": 3, "cache": True}),
    ],
)
def test_two_processes_give_the_losses_and_weights_of_one(
    task: str, changes: dict[str, Any], corpus: Corpus, tmp_path: Path, processes: ForkServerContext
) -> None:
    def data(name: str) -> dict[str, Any]:
        settings = PLAIN | changes
        if "cache" in changes:
            settings |= {"cache": str(tmp_path / name / "cache"), "optim__encoder_lr_scale": 0}
        return tiny(task, corpus, tmp_path / name, **settings)

    run(data("one"))
    two_processes(data("two"), tmp_path, processes)
    expected, found = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(expected) == 6
    assert found == pytest.approx(expected, rel=1e-4)
    a, b = checkpoint_tensors(tmp_path / "one"), checkpoint_tensors(tmp_path / "two")
    for name in a:
        if name.startswith("ema/"):
            torch.testing.assert_close(b[name], a[name], rtol=1e-3, atol=1e-4)


def test_no_share_of_a_batch_is_a_zero_with_gradients() -> None:
    layer = torch.nn.Linear(2, 2)
    loss, metrics = _Forward(layer)(None)
    loss.backward()
    assert loss == 0 and metrics == {}
    assert torch.equal(layer.weight.grad, torch.zeros(2, 2))
