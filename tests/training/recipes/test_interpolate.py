"""recipes/tools/interpolate.py: weights between those of two runs, as a folder like theirs."""

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

interpolate = runpy.run_path(
    str(Path(__file__).parents[3] / "recipes/tools/interpolate.py"), run_name="interpolate"
)["interpolate"]


def test_between_two_runs(corpus: Corpus, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(tiny("reallm", corpus, first, optim__steps=1))
    run(tiny("reallm", corpus, second, optim__steps=1, seed=2))
    groups = {"encoder.": 1.0, "encoder.norm": 0.25}
    interpolate(first, second, 0.5, groups, tmp_path / "out")
    a, b = (load_file(folder / "best" / "model.safetensors") for folder in (first, second))
    for name, weight in load_reallm(tmp_path / "out").state_dict().items():
        share = 0.5
        if name.startswith("encoder."):
            share = 0.25 if name.startswith("encoder.norm") else 1.0
        torch.testing.assert_close(weight, a[name] + share * (b[name] - a[name]))
    with pytest.raises(UserError, match="no weights"):
        interpolate(first, tmp_path, 0.5, {}, tmp_path / "out")
    with pytest.raises(UserError, match="begins with 'nothing'"):
        interpolate(first, second, 0.5, {"nothing": 1.0}, tmp_path / "out")
