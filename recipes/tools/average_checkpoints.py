"""The mean of the weights of training runs that came from one another, as a run's folder that can be exported.

    python recipes/tools/average_checkpoints.py out/joint out/mixed --out out/mean

Weights that training has led from the same place can be averaged: what each has gained is often kept ("model soups",
Wortsman et al., ICML 2022). Writes OUT/best: model.safetensors, and the last run's model.json and tokenizer.model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from speech_reallm.errors import UserError
from speech_reallm.training.checkpoint import load_weights, save_folder
from speech_reallm.training.model.ctc import best_of

# the parts of a run's best/ that are not weights
OTHERS = ("model.json", "tokenizer.model")


def mean(runs: list[Path], out: Path) -> None:
    """Raises UserError for runs without weights, or whose weights do not go together; OSError."""
    weights = [load_weights(run) for run in runs]
    for run, other in zip(runs, weights, strict=True):
        if {k: v.shape for k, v in other.items()} != {k: v.shape for k, v in weights[-1].items()}:
            raise UserError(f"{run} and {runs[-1]} are not the same model")
    averaged = {
        name: torch.stack([w[name].float() for w in weights]).mean(0).to(last.dtype)
        for name, last in weights[-1].items()
    }
    others = {name: (best_of(runs[-1]) / name).read_bytes() for name in OTHERS}
    save_folder(out / "best", {"model.safetensors": averaged} | others)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of training runs")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        mean(args.runs, args.out)
    except (UserError, OSError) as err:
        sys.exit(f"error: {err}")


if __name__ == "__main__":
    main()
