"""Draw the learning curves of training runs, and print where each ended.

python benchmarks/learning_curves.py out/encoder out/decoder --out docs/training.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from speech_reallm.jsonl import json_lines


def read(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a run's log.jsonl by kind."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for _, row in json_lines(run / "log.jsonl"):
        rows.setdefault(row["kind"], []).append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    figure, axes = plt.subplots(1, len(args.runs), figsize=(4 * len(args.runs), 3.4), squeeze=False)
    for axis, run in zip(axes[0], args.runs, strict=True):
        rows = read(run)
        train, dev = rows.get("train", []), rows.get("dev", [])
        axis.plot([r["step"] for r in train], [r["loss"] for r in train], color="0.6", label="training loss")
        # one odd batch must not flatten the rest
        losses = sorted(r["loss"] for r in train)
        if losses:
            axis.set_ylim(0.95 * losses[0], min(1.05 * losses[-1], 4 * losses[len(losses) // 2]))
        axis.set_title(run.name)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if dev:
            name = "WER, %" if "wer" in dev[0] else "held-out loss"
            right = axis.twinx()
            right.plot([r["step"] for r in dev], [r["score"] for r in dev], "o-", color="C0", label=name)
            right.set_ylabel(name, color="C0")
            right.set_ylim(0, 1.1 * max(r["score"] for r in dev))
            best = min(dev, key=lambda r: r["score"])
            print(
                f"{run.name}: {dev[-1]['minutes']:.0f} min, {dev[-1]['step']} steps, "
                f"best {name} {best['score']:.3g} at step {best['step']}"
            )
    figure.tight_layout()
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
