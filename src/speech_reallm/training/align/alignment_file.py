"""Aligned manifests: times in a lhotse cut, and writing many of them safely.

Times count from the start of the cut, where its one supervision starts too.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem

from ...errors import UserError
from ...jsonl import appended_json_lines
from .spans import word_items


def aligned_cut(cut: Cut, text: str, pieces: list[AlignmentItem], score: float) -> Cut:
    """The cut with its supervision aligned.

    `text` is what was aligned; `custom["raw_text"]` keeps what the manifest said. `score`: mean log
    probability of a frame, kept as `custom["align_score"]`. Raises ValueError when the pieces are not those
    of `text`.
    """
    words = word_items(text.split(), pieces)
    (supervision,) = cut.supervisions
    custom = {**(supervision.custom or {}), "align_score": round(score, 4)}
    # aligning an aligned manifest again keeps what was there first
    custom.setdefault("raw_text", supervision.text)
    aligned = replace(supervision, text=text, alignment={"word": words, "piece": pieces}, custom=custom)
    return replace(cut, supervisions=[aligned])


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """An utterance that is left out of the aligned manifest, and why."""

    id: str
    reason: str
    score: float | None = None


class AlignmentFile:
    """OUT.jsonl.gz, written piece by piece into OUT.jsonl.gz.part and put in its place at the end, whole.

    The part file holds a header, which says what the results depend on, and a line for each utterance done.
    Opened again with the same header it goes on where it ended; a half-written last line is discarded.
    """

    def __init__(self, path: str | Path, header: dict[str, Any], overwrite: bool = False) -> None:
        """Raises UserError when `path` exists, or its part file belongs to another run or is damaged."""
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        # what is done: the cut as JSON, or why it was dropped
        self.cuts: dict[str, str] = {}
        self.dropped: dict[str, Dropped] = {}
        # scores of all that were scored
        self.scores: list[float] = []
        if not self.path.name.endswith((".jsonl", ".jsonl.gz")):
            raise UserError(f"{self.path}: the name must end in .jsonl.gz or .jsonl")
        if overwrite:
            self.part.unlink(missing_ok=True)
        elif self.path.exists():
            raise UserError(f"{self.path} exists and is complete; to make it anew: --overwrite")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            keep = self._read(header) if self.part.exists() else 0
            self._file = open(self.part, "r+b" if keep else "wb")  # noqa: SIM115 - close() or finish() closes it
            self._file.truncate(keep)
            self._file.seek(keep)
        except OSError as err:
            raise UserError(f"cannot write {self.part}: {err.strerror or err}") from None
        if not keep:
            self._write({"header": header})
            self.flush()

    def _read(self, header: dict[str, Any]) -> int:
        """Take in what is done; returns the length in bytes of what is sound."""
        keep = 0
        for number, row, end in appended_json_lines(self.part):
            try:
                if number == 1 and row["header"] != header:
                    changed = [k for k in header if row["header"].get(k) != header[k]]
                    raise UserError(
                        f"{self.part} is of a run with another {' and '.join(changed) or 'setting'}; "
                        "finish that run, or start anew with --overwrite"
                    )
                if "cut" in row:
                    self.cuts[row["cut"]["id"]] = json.dumps(row["cut"], ensure_ascii=False)
                    self.scores.append(row["score"])
                elif "dropped" in row:
                    item = Dropped(**row["dropped"])
                    self.dropped[item.id] = item
                    self.scores += [] if item.score is None else [item.score]
            except (KeyError, TypeError, AttributeError):
                raise UserError(f"{self.part}, line {number} is damaged; delete the file") from None
            keep = end
        return keep

    def __contains__(self, cut_id: str) -> bool:
        return cut_id in self.cuts or cut_id in self.dropped

    def add(self, cut: Cut, score: float) -> None:
        data = cut.to_dict()
        self._write({"cut": data, "score": score})
        self.scores.append(score)
        self.cuts[cut.id] = json.dumps(data, ensure_ascii=False)

    def drop(self, item: Dropped) -> None:
        self._write({"dropped": asdict(item)})
        self.scores += [] if item.score is None else [item.score]
        self.dropped[item.id] = item

    def flush(self) -> None:
        """Make sure that what was added survives."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Stop here; what is done stays in the part file."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def finish(self, order: Iterable[str]) -> None:
        """Write the aligned manifest, cuts in the order of these ids, and remove the part file."""
        self.close()
        aside = self.path.with_name(self.path.name + ".tmp")
        try:
            with open(aside, "wb") as raw:
                # no time and no name in the gzip header: the same cuts make the same file
                out = gzip.GzipFile("", "wb", 6, raw, mtime=0) if self.path.suffix == ".gz" else raw
                for cut_id in order:
                    if cut_id in self.cuts:
                        out.write(self.cuts[cut_id].encode() + b"\n")
                if out is not raw:
                    out.close()
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(aside, self.path)
        except OSError as err:
            raise UserError(f"cannot write {self.path}: {err.strerror or err}") from None
        finally:
            aside.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
