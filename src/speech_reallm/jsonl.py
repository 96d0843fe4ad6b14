"""The one reader of JSON lines."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import UserError


def text_lines(path: Path | str) -> Iterator[tuple[int, str]]:
    """Line numbers and lines of a text file in UTF-8, gzipped where its name ends in .gz; blank ones are left out.

    path: a string may be a URL of an object storage. Raises UserError for a file that cannot be read, is damaged or is
    not UTF-8.
    """
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    except (EOFError, zlib.error):
        raise UserError(f"{path} is damaged or ends early; make it again") from None
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror or err}") from None


def _open(path: Path | str) -> IO[str]:
    zipped = str(path).endswith(".gz")
    if isinstance(path, str) and "://" in path:
        # only then: reading a file needs nothing of it
        from .storage import open_binary

        binary: IO[bytes] = open_binary(path, path)
        return io.TextIOWrapper(gzip.GzipFile(fileobj=binary) if zipped else binary, encoding="utf-8")
    opener = gzip.open if zipped else open
    return opener(path, "rt", encoding="utf-8")


def json_object(line: str) -> dict[str, Any]:
    """The object of one line. Raises ValueError saying what is wrong."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as err:
        raise ValueError(f"not JSON ({err.msg} at column {err.colno})") from None
    if not isinstance(row, dict):
        raise ValueError("expected a JSON object")
    return row


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a file of JSON lines. Raises UserError naming file and line."""
    for number, line in text_lines(path):
        try:
            yield number, json_object(line)
        except ValueError as err:
            raise UserError(f"{path}, line {number}: {err}") from None


def appended_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Line number, object and end (in bytes) of each line of a file to which a run that was stopped appended.

    A last line that was cut off is left out. Raises OSError, and UserError that names file and line for a damaged one.
    """
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                yield number, json_object(line.decode()), end
            except ValueError:
                raise UserError(f"{path}, line {number} is damaged; delete the file") from None
