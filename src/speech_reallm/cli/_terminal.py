"""The terminal: words as they come, and a progress bar."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from ..events import Event, Final, Partial


class LiveText:
    """Writes partials as they come and never takes anything back.

    On a terminal, words that would not fit go to the next line; elsewhere there is one line a segment.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._tty = self._out.isatty()
        self._column = 0

    def show(self, event: Event) -> None:
        if isinstance(event, Partial):
            self._write(event.text)
        elif isinstance(event, Final):
            self.newline()

    def newline(self) -> None:
        if self._column:
            self._out.write("\n")
            self._out.flush()
        self._column = 0

    def _write(self, text: str) -> None:
        if self._tty:
            text = self._wrap(text)
        self._out.write(text)
        self._out.flush()
        tail = text.rsplit("\n", 1)
        self._column = len(tail[-1]) if len(tail) > 1 else self._column + len(text)

    def _wrap(self, text: str) -> str:
        """Turn a space into a line break where the word after it would not fit.

        The word may go on later; half a dozen columns are spared for that.
        """
        width = max(20, shutil.get_terminal_size().columns - 6)
        column, parts = self._column, text.split(" ")
        wrapped = parts[0]
        column += len(parts[0])
        for part in parts[1:]:
            if column + 1 + len(part) > width:
                wrapped += f"\n{part}"
                column = len(part)
            else:
                wrapped += f" {part}"
                column += 1 + len(part)
        return wrapped


class Progress:
    """A bar with the time left, on standard error if that is a terminal; nothing for what is quickly done."""

    def __init__(self, label: str, total: float, out: TextIO | None = None) -> None:
        """total: of the work, in any unit; 0 if not known."""
        self._out = out or sys.stderr
        self._label, self._total = label, total
        self._on = self._out.isatty()
        self._started = time.monotonic()
        self._shown = 0.0

    def update(self, done: float, seconds: float | None = None, label: str | None = None) -> None:
        """done: in the unit of `total`. seconds: of audio, if that is another."""
        self._label = label or self._label
        now = time.monotonic()
        elapsed = now - self._started
        if not self._on or elapsed < 1.0 or now - self._shown < 0.2:
            return
        self._shown = now
        seconds = done if seconds is None else seconds
        speed = seconds / elapsed
        if 0 < done <= self._total:
            share = done / self._total
            bar = "#" * int(share * 20)
            left = elapsed * (1 - share) / share
            text = f"{self._label} [{bar:.<20}] {share:4.0%} {speed:.1f}x, {clock(left)} left"
        else:
            text = f"{self._label} {clock(seconds)} {speed:.1f}x"
        width = shutil.get_terminal_size().columns - 1
        self._out.write(f"\r\x1b[K{text[:width]}")
        self._out.flush()

    def close(self) -> None:
        """Leave the line empty; the next update shows the bar again."""
        if self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._shown = 0.0


def clock(seconds: float) -> str:
    """75 -> 1:15, 4000 -> 1:06:40"""
    minutes, seconds = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{seconds:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
