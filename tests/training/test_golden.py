"""The losses of short runs of every task are those that were recorded, so that moving code changes no training.

Other processors and other versions of torch round otherwise, so the comparison is to five parts in a thousand. Whoever
moves code on the machine of the record asks for the last digit:

    GOLDEN=exact python -m pytest tests/training/test_golden.py

A commit that changes what is computed or the order of random draws records them anew and says so:

    GOLDEN=record python -m pytest tests/training/test_golden.py
"""

from __future__ import annotations

import json
import os
import platform
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import soundfile
import torch
from test_distributed import two_processes
from tiny import losses, run, tiny
from tones import Corpus

RECORD = Path(__file__).parents[1] / "golden" / "losses.json"
STEPS = 12
READING = {
    "model__decoder__cross_attention_chunks": 4,
    "model__decoder__mlp_bias": True,
    "model__decoder__rotary_fraction": 0.5,
}
SOUND = {
    "data__concatenate_prob": 0.5,
    "data__speaker_balance": 0.3,
    "data__weights": [1.5],
    "data__augment__speeds": [0.9, 1.0, 1.1],
    "data__augment__volume_db": 6,
    "data__augment__equaliser_prob": 0.5,
    "data__augment__noise_prob": 0.5,
    "data__augment__codec_prob": 0.3,
    "data__augment__time_masks": 2,
    "data__augment__time_mask_frames": 5,
    "data__augment__feature_masks": 1,
    "data__augment__feature_mask_bins": 4,
}
FROZEN = {"optim__encoder_lr_scale": 0.0}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "distillation of frames": (
        "distill",
        SOUND
        | {
            "distillation_teacher": True,
            "teacher_padding_seconds": 0.5,
            "model__encoder__right_context": [1, 2],
        }
        | {"data__shuffle_prob": 0.4},
    ),
    "CTC": ("ctc", SOUND),
    "CTC on cached frames": ("ctc", SOUND | FROZEN | {"cache": True}),
    "text": ("lm", {"model__decoder__kv_heads": 1}),
    "audio": ("reallm", SOUND | {"piece_noise_prob": 0.1, "label_smoothing": 0.05, "optim__accumulate": 2}),
    "cached frames and text": ("reallm", SOUND | FROZEN | {"cache": True, "text": True, "text_share": 0.3}),
    "spliced speech": ("reallm", FROZEN | {"cache": True, "text": True, "splice_share": 0.6}),
    "perturbed alignment": (
        "reallm",
        SOUND
        | READING
        | {
            "perturbation_prob": 0.2,
            "scheduled_sampling_prob": 0.3,
            "blank_weight": 0.7,
            "model__encoder__right_context": [1, 2],
        },
    ),
    "offline teacher": (
        "reallm",
        SOUND
        | READING
        | {
            "distillation_teacher": True,
            "init": True,
            "teacher_padding_seconds": 0.5,
            "soft_label_weight": 0.7,
            "frame_distillation_weight": 0.3,
        }
        | {"weight_interpolation": 0.5, "perturbation_prob": 0.1, "model__encoder__right_context": [1, 2]}
        | {
            "optim__l2_sp": 10.0,
            "optim__new_parameters": [".chunk_age", "stacker.", "label_delay_embedding."],
        }
        | {"optim__frozen": ["decoder.embed."], "optim__weight_decay": 0.05},
    ),
}


def settings(name: str, corpus: Corpus, folder: Path) -> dict[str, Any]:
    """The plain data of a run's file, its other files under `folder`."""
    task, changes = RUNS[name]
    changes = {"optim__steps": STEPS, **changes}
    if "data__augment__noise_prob" in changes:
        changes["data__augment__noise"] = str(corpus.plain)
    if "cache" in changes:
        changes["cache"] = str(folder / "cache")
    if "text" in changes:
        changes["text"] = [str(corpus.text)]
    if "distillation_teacher" in changes:
        changes["distillation_teacher"] = str(folder / "teacher")
        # any recogniser will do as a teacher
        run(tiny("reallm", corpus, folder / "teacher", **READING, optim__steps=2, seed=3))
    if "init" in changes:
        run(tiny("reallm", corpus, folder / "first", **READING, optim__steps=2, seed=4))
        changes["init"] = [str(folder / "first")]
    return tiny(task, corpus, folder / "run", **changes)


def machine() -> dict[str, str]:
    """What the last digits of a loss depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": f"{name or platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
    }


def compare(name: str, found: list[float]) -> None:
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"machine": machine(), "losses": {}}
    if os.environ.get("GOLDEN") == "record":
        record["machine"] = machine()
        record["losses"][name] = found
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        return
    expected = record["losses"][name]
    assert len(found) == len(expected) == STEPS
    if os.environ.get("GOLDEN") == "exact":
        assert (record["machine"], found) == (machine(), expected)
    else:
        assert found == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_of_the_record(name: str, corpus: Corpus, tmp_path: Path) -> None:
    data = settings(name, corpus, tmp_path)
    run(data)
    compare(name, losses(tmp_path / "run"))


def test_losses_of_two_processes_are_those_of_the_record(
    corpus: Corpus, tmp_path: Path, processes: ForkServerContext
) -> None:
    two_processes(settings("audio", corpus, tmp_path), tmp_path, processes)
    compare("audio, two processes", losses(tmp_path / "run"))
