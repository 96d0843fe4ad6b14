"""A run may have more label delays than the one that it starts from."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import run, tiny
from tones import Corpus

from speech_reallm.training.export.folder import load_reallm


def test_new_delays_begin_as_the_largest_old_one(corpus: Corpus, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(tiny("reallm", corpus, first, optim__steps=1, model__delays=[0, 1]))
    changes = {"init": [str(first)], "optim__steps": 1, "optim__lr": 1e-9, "model__delays": [0, 1, 3]}
    run(tiny("reallm", corpus, second, **changes))
    old, new = (load_reallm(folder).label_delay_embedding.weight for folder in (first, second))
    assert (len(old), len(new)) == (2, 4)
    torch.testing.assert_close(new, old[[0, 1, 1, 1]], atol=1e-5, rtol=0)
