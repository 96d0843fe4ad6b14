"""One run of the bench as JSON: what was trained how, and what measure.py found, with intervals and failure signatures.

    python recipes/paper/result.py joint --name "joint attention, 6 layers" --row 1 --run out/paper/joint \\
        --measured librispeech-dev=out/paper/joint/librispeech-dev --out recipes/paper/results

Reads RUN/config.json and RUN/log.jsonl where there is a run, and the lines of measure.py. Writes OUT/SYSTEM.json, which
report.py makes docs/paper.md of.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from speech_reallm.errors import UserError
from speech_reallm.evaluate.bootstrap import interval
from speech_reallm.evaluate.latency import percentiles
from speech_reallm.evaluate.wer import Counts, by_length, total
from speech_reallm.files import write_text
from speech_reallm.jsonl import json_lines

SUMMED = ("substitutions", "deletions", "insertions", "leading_insertions", "mute_stretches", "repeats")


def measured(folder: Path) -> dict[str, Any]:
    """The figures of all lines in a folder of measure.py. Raises UserError where there are none."""
    rows = {row["id"]: row for path in sorted(folder.glob("*.jsonl")) for _, row in json_lines(path)}
    if not rows:
        raise UserError(f"{folder} has no lines of measure.py")
    found = list(rows.values())
    counts = [
        Counts(row["words"], row["substitutions"], row["deletions"], row["insertions"]) for row in found
    ]
    seconds = sum(row["seconds"] for row in found)
    delays = [d for row in found for d in row["delays_ms"] or ()]
    ends = percentiles(delays, 50, 90)
    return {
        "utterances": len(found),
        "hours": round(seconds / 3600, 4),
        "words": total(counts).words,
        "wer": round(total(counts).wer or 0.0, 2),
        "wer_95": [round(x, 2) for x in interval([c.errors for c in counts], [c.words for c in counts])],
        **{name: sum(row[name] for row in found) for name in SUMMED},
        "emission_delay_ms": {k: None if v is None else round(v) for k, v in ends.items()},
        "delay_utterances": sum(row["delays_ms"] is not None for row in found),
        "cpu_per_audio_second": round(sum(row["cpu_seconds"] for row in found) / seconds, 4),
        "wer_by_length": [
            {**row, "wer": None if row["wer"] is None else round(row["wer"], 2)}
            for row in by_length(zip([row["seconds"] for row in found], counts, strict=True))
        ],
    }


def trained(run: Path) -> dict[str, Any]:
    """How a run was trained: seed, steps, minutes, last losses. Raises UserError."""
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise UserError(f"{run / 'config.json'} is not the configuration of a run: {err}") from None
    rows = [row for _, row in json_lines(run / "log.jsonl")] if (run / "log.jsonl").exists() else []
    steps = [row for row in rows if row["kind"] == "train"]
    speed = [s["steps_per_s"] for s in steps]
    gaps = [b["step"] - a["step"] for a, b in zip([{"step": 0}, *steps], steps, strict=False)]
    return {
        "seed": config["seed"],
        "steps": steps[-1]["step"] if steps else 0,
        "audio_hours": round((steps[-1]["step"] if steps else 0) * config["data"]["batch_seconds"] / 3600, 3),
        "minutes": round(sum(g / s for g, s in zip(gaps, speed, strict=True)) / 60, 1),
        "loss": [round(s["loss"], 3) for s in steps],
        "config": {k: v for k, v in config.items() if k not in ("data", "out", "init", "cache", "text")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", help="name of the file")
    parser.add_argument("--name", required=True, help="what the table calls it")
    parser.add_argument("--row", type=int, required=True, help="of the table of docs/paper.md")
    parser.add_argument("--run", type=Path, help="folder of the training run, if there was one")
    parser.add_argument("--start", default="", help="what it began as")
    parser.add_argument("--note", default="")
    parser.add_argument(
        "--measured", action="append", default=[], metavar="SET=FOLDER", help="lines of measure.py"
    )
    parser.add_argument("--out", type=Path, default=Path("recipes/paper/results"))
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    try:
        sets = dict(item.split("=", 1) for item in args.measured)
        result = {
            "system": args.system,
            "name": args.name,
            "row": args.row,
            "commit": commit.strip() or None,
            "start": args.start,
            "note": args.note,
            "training": trained(args.run) if args.run else None,
            "sets": {name: measured(Path(folder)) for name, folder in sets.items()},
        }
        args.out.mkdir(parents=True, exist_ok=True)
        write_text(args.out / f"{args.system}.json", json.dumps(result, indent=1) + "\n")
    except (UserError, OSError, ValueError) as err:
        sys.exit(f"error: {err}")
    print(f"wrote {args.out / args.system}.json")


if __name__ == "__main__":
    main()
