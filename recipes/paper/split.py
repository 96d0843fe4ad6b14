"""Training data of the bench, and held-out speakers to choose on: recordings of the same corpora, other voices.

    python recipes/paper/split.py data/speech --out out/paper librispeech-train vctk queen words

Of each manifest DIR/NAME.jsonl every tenth speaker, where there are at least ten, goes to OUT/choose.jsonl; the others
go to OUT/manifests/NAME.jsonl. Rows without a text are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from speech_reallm.errors import UserError
from speech_reallm.files import write_text
from speech_reallm.jsonl import json_lines

EVERY = 10


def split(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to train on and rows of held-out speakers."""
    speakers = sorted({str(row.get("speaker")) for row in rows})
    held = set(speakers[EVERY // 2 :: EVERY]) if len(speakers) >= EVERY else set()
    return (
        [row for row in rows if str(row.get("speaker")) not in held],
        [row for row in rows if str(row.get("speaker")) in held],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with the manifests NAME.jsonl")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    chosen: list[dict[str, Any]] = []
    try:
        (args.out / "manifests").mkdir(parents=True, exist_ok=True)
        for name in args.names:
            rows = []
            for _, row in json_lines(args.folder / f"{name}.jsonl"):
                if row.get("text"):
                    rows.append({**row, "audio": str((args.folder / str(row["audio"])).resolve())})
            train, held = split(rows)
            chosen += held
            _write(args.out / "manifests" / f"{name}.jsonl", train)
            print(f"{name}: {len(train)} to train on, {len(held)} to choose on")
        _write(args.out / "choose.jsonl", chosen)
    except (UserError, OSError, KeyError) as err:
        sys.exit(f"error: {err}")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    main()
