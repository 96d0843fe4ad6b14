"""The standard streams as they may be: closed, full, without a reader, of an encoding that lacks letters."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from ..errors import UserError


class OutputLost(Exception):
    """Standard output takes no more. `reader_left`: it is a pipe, and whoever read from it has ended."""

    def __init__(self, err: OSError) -> None:
        super().__init__(f"cannot write to standard output: {err.strerror or err}")
        self.reader_left = isinstance(err, BrokenPipeError)


class _Output:
    """Standard output: what goes wrong with it is told from every other OSError."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            written: int = self._stream.write(text)
            return written
        except OSError as err:
            raise self._lost(err) from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as err:
            raise self._lost(err) from None

    def _lost(self, err: OSError) -> OutputLost:
        # what is still buffered would make Python complain once more when it ends
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        return OutputLost(err)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Errors:
    """Standard error: nothing depends on it, so that nothing ends because it takes no more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Closed(io.TextIOBase):
    """Standard output that was closed before the program began."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        if text:
            raise OSError(errno.EBADF, "it is closed")
        return 0


class _NoInput(io.TextIOBase):
    """Standard input that was closed before the program began."""

    @property
    def buffer(self) -> Any:
        raise UserError(
            "there is no standard input to read: it is closed; pipe something into it, or name a file"
        )


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Streams that can be used whatever the program was started with."""
    before = sys.stdin, sys.stdout, sys.stderr
    if None in before:
        _fill_descriptors()
    sys.stdin = before[0] or _NoInput()
    sys.stdout = _Output(before[1] or _Closed())
    sys.stderr = _Errors(before[2] or open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if hasattr(before[1], "reconfigure") and before[1].errors in ("strict", "surrogateescape"):
        # a letter that the console lacks is written as \xe9; what is piped on stays as it is where it can
        with contextlib.suppress(OSError, ValueError):
            before[1].reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _fill_descriptors() -> None:
    """A file that is opened later must not get the number of a standard stream: libraries write to those."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number is this one
            os.open(os.devnull, os.O_RDWR)


def printable_json(text: str, encoding: str | None) -> str:
    """JSON for a stream of this encoding: letters that it lacks as JSON escapes them."""
    try:
        text.encode(encoding or "utf-8")
        return text
    except (UnicodeEncodeError, LookupError):
        return "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
