"""The texts that tokenizers are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...errors import UserError
from ...jsonl import json_lines


def lines_of(paths: Iterable[str]) -> Iterator[str]:
    """Lines of text files, and the `text` of each row of .jsonl manifests. Raises UserError naming file and line."""
    for path in map(Path, paths):
        if path.suffix == ".jsonl":
            for number, row in json_lines(path):
                if not isinstance(row.get("text"), str):
                    raise UserError(f"{path}, line {number}: not a JSON object with `text`")
                yield row["text"]
            continue
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                yield from lines
        except OSError as err:
            raise UserError(f"cannot read {path}: {err.strerror}") from None
