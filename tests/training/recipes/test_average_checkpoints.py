"""recipes/tools/average_checkpoints.py: the mean of two runs' weights, as a folder like theirs."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import run, tiny
from tones import Corpus

from speech_reallm.errors import UserError
from speech_reallm.training.export.folder import load_reallm

mean = runpy.run_path(
    str(Path(__file__).parents[3] / "recipes/tools/average_checkpoints.py"), run_name="mean"
)["mean"]


def test_mean(corpus: Corpus, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(tiny("reallm", corpus, first, optim__steps=1))
    run(tiny("reallm", corpus, second, optim__steps=1, seed=2))
    mean([first, second], tmp_path / "out")
    a, b = (load_file(folder / "best" / "model.safetensors") for folder in (first, second))
    for name, weight in load_reallm(tmp_path / "out").state_dict().items():
        torch.testing.assert_close(weight, (a[name] + b[name]) / 2)
    with pytest.raises(UserError, match="no weights"):
        mean([first, tmp_path], tmp_path / "out")
    third = tmp_path / "third"
    run(tiny("reallm", corpus, third, optim__steps=1, model__decoder__ffn=16))
    with pytest.raises(UserError, match="not the same model"):
        mean([third, second], tmp_path / "out")
