"""What is evaluated on: plain manifests, read without any training package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import UserError
from ..jsonl import json_lines
from .latency import TimedWord


@dataclass(frozen=True, slots=True)
class Row:
    """One utterance: where its audio is and its text; `words`: word times, if there are any."""

    id: str
    audio: Path
    text: str
    duration: float | None
    speaker: str | None
    words: tuple[TimedWord, ...] | None


def read_manifest(path: str | Path, limit: int | None = None) -> list[Row]:
    """Read a plain manifest (JSON lines, `.gz` allowed).

    `limit` takes that many rows spread evenly over the file, because manifests are mostly sorted by speaker.
    Raises UserError naming file, line and fault: unreadable file, malformed row, missing audio, no rows.
    """
    path = Path(path)
    folder = path.resolve().parent
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, line in json_lines(path):
        try:
            row = _row(line, folder)
        except ValueError as err:
            raise UserError(f"{path}, line {number}: {err}") from None
        if row.id in seen:
            raise UserError(f"{path}, line {number}: the id {row.id!r} is also on line {seen[row.id]}")
        seen[row.id] = number
        rows.append(row)
    if not rows:
        raise UserError(f"{path} has no rows")
    if limit is not None:
        if limit < 1:
            raise UserError("--limit must be at least 1")
        if limit < len(rows):
            rows = [rows[i * len(rows) // limit] for i in range(limit)]
    return rows


def _row(data: dict[str, Any], folder: Path) -> Row:
    """Raises ValueError saying what is wrong."""
    audio, text = data.get("audio"), data.get("text")
    if not isinstance(audio, str) or not audio:
        raise ValueError("`audio` must be the path of an audio file")
    if not isinstance(text, str):
        raise ValueError("`text` must be a string")
    duration = data.get("duration")
    if duration is not None and not (_is_number(duration) and duration > 0):
        raise ValueError("`duration` must be a number of seconds above 0")
    if not (folder / audio).is_file():
        raise ValueError(f"audio file {folder / audio} does not exist")
    speaker = data.get("speaker")
    words = data.get("words")
    return Row(
        id=str(data["id"]) if data.get("id") is not None else audio,
        audio=folder / audio,
        text=text,
        duration=None if duration is None else float(duration),
        speaker=None if speaker is None else str(speaker),
        words=None if words is None else tuple(timed_words(words)),
    )


def timed_words(items: Any) -> Iterator[TimedWord]:
    """Word times from a list of `{word, start, end}`, or of lhotse's `[symbol, start, duration, score]` or
    `{symbol, start, duration}`. Raises ValueError saying what is wrong."""
    if not isinstance(items, list):
        raise ValueError("word times must be a list")
    for item in items:
        if isinstance(item, dict) and "symbol" in item:
            item = [item["symbol"], item.get("start"), item.get("duration")]
        if isinstance(item, dict):
            word, start, end = item.get("word"), item.get("start"), item.get("end")
        elif isinstance(item, list) and len(item) >= 3:
            word, start, end = item[:3]
            end = start + end if _is_number(start) and _is_number(end) else None
        else:
            raise ValueError(f"word times: cannot read {item!r}")
        if not (isinstance(word, str) and _is_number(start) and _is_number(end)):
            raise ValueError(f"word times: cannot read {item!r}")
        yield TimedWord(word, float(start), float(end))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
