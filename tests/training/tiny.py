"""Training files that run in seconds, and running them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tones import Corpus
from torch import Tensor, nn

from speech_reallm.training.checkpoint import latest
from speech_reallm.training.config import RunConfig, build
from speech_reallm.training.loop import train
from speech_reallm.training.tasks.base import make_task, task_configs

ENCODER = {
    "kind": "waveform", "layers": 2, "dim": 32, "heads": 2, "ffn": 64, "left_chunks": 4, "right_context": [1],
    "dropout": 0.1,
}  # fmt: skip
CONFORMER = {
    **ENCODER,
    "kind": "conformer",
    "layers": 1,
    "conv_kernel": 5,
    "right_context": [0],
    "lookahead": [1],
}
DECODER = {"layers": 2, "dim": 32, "heads": 2, "ffn": 64, "window": 64, "dropout": 0.1}
NEVER = 1e9


def tiny(task: str, corpus: Corpus, out: Path, **changes: Any) -> dict[str, Any]:
    """The plain data of a training file; `changes` are keys with __ for the dots: data__batch_seconds=5."""
    data: dict[str, Any] = {
        "task": task,
        "out": str(out),
        "data": {
            "train": [str(corpus.aligned if task == "reallm" else corpus.plain)],
            "tokenizer": str(corpus.tokenizer),
            "batch_seconds": 10,
        },
        "optim": {"steps": 8, "lr": 2e-3, "warmup_steps": 2, "bf16": False, "ema": 0.9},
        "save_minutes": NEVER,
        "eval_minutes": NEVER,
        "log_steps": 1,
    }
    if task == "ctc":
        encoder = {**ENCODER, "right_context": [0], "full_context": True}
        data["ctc"] = {"vocab_size": corpus.vocab, "head_layers": 1, "encoder": encoder}
    else:
        model = {"vocab_size": corpus.vocab, "encoder": ENCODER, "decoder": DECODER, "delays": [0, 1]}
        data["model"] = model
    if task == "lm":
        data["data"]["train"] = []
        data["text"] = [str(corpus.text)]
        # two sequences in a batch
        data["data"]["batch_seconds"] = 72
    data = copy.deepcopy(data)
    for key, value in changes.items():
        node = data
        *parents, last = key.split("__")
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return data


def write_file(path: Path, data: dict[str, Any]) -> str:
    """A training file; JSON is YAML."""
    path.write_text(json.dumps(data))
    return str(path)


def make(data: dict[str, Any]) -> tuple[RunConfig, nn.Module]:
    """Configuration and task, with the weights that a run starts from."""
    config = build(task_configs()[data["task"]], data)
    torch.manual_seed(config.seed)
    return config, make_task(config)


def run(data: dict[str, Any], **options: Any) -> dict[str, Any]:
    config, task = make(data)
    return train(config, task, **options)


def losses(out: Path) -> list[float]:
    """The training loss of each step that was logged."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


def checkpoint_tensors(out: Path) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint: weights, averaged weights, moments."""
    folder = latest(out / "checkpoint")
    assert folder is not None
    return {
        f"{name}/{key}": value
        for name in ("model", "ema", "optimizer")
        for key, value in load_file(folder / f"{name}.safetensors").items()
    }


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different
