"""A progress line on a terminal: how far, the error rate so far, and how long it will still take."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Rewrites one line of `out`; silent where `out` is not a terminal."""

    def __init__(self, total: int, out: TextIO | None = None) -> None:
        self.total = total
        self.out = out or sys.stderr
        self.live = self.out.isatty()
        self.began = time.monotonic()
        self._width = 0

    def update(self, done: int, note: str) -> None:
        """Show that `done` of the total are done, with a note behind it."""
        if not self.live:
            return
        left = (time.monotonic() - self.began) / max(done, 1) * (self.total - done)
        cells = 24 * done // max(self.total, 1)
        bar = "#" * cells + "." * (24 - cells)
        self._write(f"[{bar}] {done}/{self.total}  {note}  {int(left) // 60}:{int(left) % 60:02d} left")

    def close(self) -> None:
        """Leave the line empty."""
        if self.live and self._width:
            self._write("")
            self.out.write("\r")
            self.out.flush()

    def _write(self, text: str) -> None:
        self.out.write("\r" + text.ljust(self._width))
        self._width = len(text)
        self.out.flush()
