"""Words appearing in place on a terminal, above a line that shows the level of the microphone."""

from __future__ import annotations

import math
import shutil
import sys
from typing import TextIO

import numpy as np

from ..events import Event, Final, Partial
from ._terminal import clock

# the meter goes from here to full scale
_QUIET = -60.0
_CELLS = 12
# clears to the end of the line; one line up
_CLEAR, _UP = "\x1b[K", "\x1b[1A"


class Screen:
    """Two lines at the bottom: the line of text that is growing, and the status. Finished lines scroll up."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._line = ""
        self._status = ""
        self._open = False

    def show(self, event: Event) -> None:
        """Append what was recognised; a finished segment ends its line."""
        if isinstance(event, Partial):
            self._line += event.text
            while len(self._line) > self._width:
                # at a space if there is one
                cut = self._line.rfind(" ", 1, self._width + 1)
                head, self._line = (
                    (self._line[:cut], self._line[cut + 1 :])
                    if cut > 0
                    else (self._line[: self._width], self._line[self._width :])
                )
                self._scroll(head)
        elif isinstance(event, Final) and self._line:
            line, self._line = self._line, ""
            self._scroll(line)
        self._draw()

    def level(self, block: np.ndarray, seconds: float) -> None:
        """block: what was just received, [n]; seconds: how long it has been going on."""
        self._status = f"[{meter(block)}] {clock(seconds)}  Ctrl-C ends"
        self._draw()

    def note(self, text: str) -> None:
        """A line between the words, for what goes wrong."""
        self._scroll(f"({text})")
        self._draw()

    def close(self) -> None:
        """Leave the text, without the status."""
        if self._open:
            self._out.write(f"\r{_CLEAR}{_UP}\r{self._line}{_CLEAR}" + ("\n" if self._line else ""))
            self._out.flush()
        self._line, self._open = "", False

    @property
    def _width(self) -> int:
        # a terminal may wrap a line that fills it
        return max(20, shutil.get_terminal_size().columns - 1)

    def _scroll(self, line: str) -> None:
        """Put a finished line where the growing one was."""
        self._begin()
        self._out.write(f"\r{_CLEAR}{_UP}\r{line[: self._width]}{_CLEAR}\n\n")

    def _draw(self) -> None:
        self._begin()
        self._out.write(f"\r{_UP}{self._line}{_CLEAR}\n{self._status[: self._width]}{_CLEAR}")
        self._out.flush()

    def _begin(self) -> None:
        if not self._open:
            self._out.write("\n")
            self._open = True


def meter(block: np.ndarray) -> str:
    """The loudness (RMS) of a block [n]: no # for -60 dB or less, twelve for full scale, ! where it clips."""
    if not len(block):
        return "." * _CELLS
    power = float(np.mean(np.square(block, dtype=np.float64)))
    decibels = 10 * math.log10(power) if power > 0 else _QUIET
    cells = min(_CELLS, max(0, round(_CELLS * (1 - decibels / _QUIET))))
    bar = f"{'#' * cells:.<{_CELLS}}"
    return bar[:-1] + "!" if np.abs(block).max() >= 0.999 else bar
