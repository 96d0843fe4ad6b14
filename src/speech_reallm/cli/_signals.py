"""An orderly end: Ctrl-C, SIGTERM (service managers, docker stop, timeout) and SIGHUP (a closed terminal) alike."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Seconds after the first signal in which another one is taken for the same: a shell and the system both tell a program
# that its terminal is closed, and service managers send two kinds at once.
SAME = 1.0
_HANGUP = getattr(signal, "SIGHUP", None)
# the first signal that asked this command to end
_first = 0
_hung_up = False


class Terminated(KeyboardInterrupt):
    """A signal other than Ctrl-C asks for the end; whatever catches Ctrl-C catches it."""


def exit_code() -> int:
    """What a shell reports of a program that a signal ended: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + (_first or signal.SIGINT)


@contextmanager
def ending_signals() -> Iterator[None]:
    """For the whole command: SIGTERM raises Terminated where a verb has no handler of its own; SIGHUP is SIGTERM.

    A program started with nohup goes on when its terminal is closed.
    """
    global _first, _hung_up
    _first, _hung_up = 0, False
    before: dict[int, Any] = {}
    try:
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, _terminate)
        if _HANGUP is not None and signal.getsignal(_HANGUP) == signal.SIG_DFL:
            before[_HANGUP] = signal.signal(_HANGUP, _hang_up)
    except ValueError:
        # not in the main thread: signals do not come here
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    note(number)
    raise Terminated


def _hang_up(number: int, frame: FrameType | None) -> None:
    global _hung_up
    note(number)
    # the terminal and the shell may both say so
    if not _hung_up:
        _hung_up = True
        signal.raise_signal(signal.SIGTERM)


def note(number: int) -> None:
    """Remember the first signal, for the exit code."""
    global _first
    _first = _first or number


class Interrupt:
    """The first signal sets a flag, so that what has been received can be finished; a later one stops at once."""

    def __init__(self) -> None:
        self.seen = False
        # the work is to end, for a signal or for want of a reader
        self.stopping = False
        self._when = 0.0
        self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            # not in the main thread: signals do not come here
            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self) -> None:
        """End the work in order, as a signal does."""
        self.stopping = True

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While something is waited for that may never come, a signal raises KeyboardInterrupt at once."""
        if self.stopping:
            raise KeyboardInterrupt
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        note(number)
        now = time.monotonic()
        again = self.seen and now - self._when > SAME
        if not self.seen:
            self.seen, self._when = True, now
        self.stop()
        if again or self._waiting:
            raise KeyboardInterrupt
