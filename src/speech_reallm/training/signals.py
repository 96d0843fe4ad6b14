"""An orderly end on SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from typing import Any


class OrderlyStop:
    """SIGINT and SIGTERM ask for an orderly end: the step is finished and a checkpoint written."""

    def __init__(self) -> None:
        self.signal = 0
        self.when = 0.0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> OrderlyStop:
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):  # not the main thread
                self.previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: object) -> None:
        # torchrun passes on a Ctrl-C that the terminal has sent to everyone already
        if self.signal and time.monotonic() - self.when > 1:
            raise KeyboardInterrupt
        if self.signal:
            return
        self.signal, self.when = number, time.monotonic()
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
