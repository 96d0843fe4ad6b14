"""What readers yield, and the bytes that they read from."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..errors import UserError


class UnknownFormat(UserError):
    """Not the format that this reader reads."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Decoded samples. samples: float32 [n, channels]; rate: Hz; layout: names of the channels, None if unknown."""

    samples: np.ndarray
    rate: int
    layout: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Time without samples. lost: there was sound, but it cannot be read; else the file has nothing there."""

    seconds: float
    lost: bool = True


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that the user should be told; reads on after the name of the file ("is cut short ...")."""

    text: str


Item = Sound | Gap | Problem


def cut_short(seconds: float, promised: float = 0.0) -> Problem:
    """seconds: what there is; promised: by the header, 0 if it says nothing."""
    of = f" of {promised:.1f} s" if promised > seconds else ""
    return Problem(f"is cut short after {seconds:.1f} s{of}; using what is there")


def shorter(seconds: float) -> Problem:
    """seconds: what the header promises and nobody finds."""
    return Problem(
        f"is {seconds:.1f} s shorter than its header says: it is cut short, or sound is missing in it"
    )


class ByteReader:
    """Bytes of a file or pipe, forward only, with a look ahead.

    Attributes: `position` of the next byte, `size` in bytes (None: a pipe).
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.position = 0
        self.size: int | None = None
        self._buffer = bytearray()
        try:
            if file.seekable():
                self.size = file.seek(0, os.SEEK_END)
                file.seek(0)
        except (AttributeError, OSError, ValueError):
            self.size = None
        # a pipe that nobody writes to must not hold up what is there
        self._some = getattr(file, "read1", file.read) if self.size is None else file.read

    @property
    def left(self) -> int | None:
        """Bytes to the end, None where nobody knows."""
        return None if self.size is None else max(0, self.size - self.position)

    def buffered(self, count: int) -> bytearray:
        """The look-ahead buffer with at least `count` bytes, fewer only at the end of the input; not a copy."""
        while len(self._buffer) < count:
            want = count - len(self._buffer)
            data = self._some(max(want, 1 << 16) if self.size is not None else want)
            if not data:
                break
            self._buffer += data
        return self._buffer

    def peek(self, count: int, at: int = 0) -> bytes:
        """`count` bytes from `at` bytes ahead, fewer only at the end."""
        return bytes(self.buffered(at + count)[at : at + count])

    def read(self, count: int) -> bytes:
        """`count` bytes, fewer only at the end."""
        data = self.peek(count)
        self._advance(len(data))
        return data

    def some(self, count: int) -> bytes:
        """1 to `count` bytes, as many as are there; none at the end."""
        data = bytes(self._buffer[:count]) if self._buffer else self._some(count)
        if self._buffer:
            del self._buffer[: len(data)]
        self.position += len(data)
        return data

    def resume(self) -> None:
        """To where this reader is, after others have moved the file."""
        self.file.seek(self.position + len(self._buffer))

    def give_back(self, data: bytes) -> None:
        """Undo the reading of these bytes, the last that were read."""
        self._buffer[:0] = data
        self.position -= len(data)

    def skip(self, count: int) -> bool:
        """Go on; False if the input ends before."""
        inside = min(count, len(self._buffer))
        self._advance(inside)
        count -= inside
        if count and self.size is not None:
            there = min(count, self.size - self.position)
            self.file.seek(self.position + there)
            self.position += there
            return there == count
        while count:
            data = self._some(min(count, 1 << 16))
            if not data:
                return False
            self.position += len(data)
            count -= len(data)
        return True

    def find(self, pattern: re.Pattern[bytes], start: int, end: int) -> int:
        """Where the pattern is found, in bytes ahead, among the bytes [start, end); -1 if it is not."""
        match = pattern.search(self.buffered(end), start, end)
        return match.start() if match else -1

    def _advance(self, count: int) -> None:
        del self._buffer[:count]
        self.position += count


class Rest:
    """The bytes of a reader as a file that cannot be sought in, for libraries that want one."""

    def __init__(self, data: ByteReader) -> None:
        self._data = data

    def read(self, count: int = 1 << 16) -> bytes:
        return self._data.some(count)


class Seekable:
    """A whole file from its beginning, for libraries that seek; errors of the disk end it like its end."""

    def __init__(self, data: ByteReader) -> None:
        self._file, self._size = data.file, data.size or 0
        self._at = 0
        self.error: OSError | None = None

    def read(self, count: int = -1) -> bytes:
        try:
            self._file.seek(self._at)
            block = self._file.read(count)
        except (OSError, ValueError) as err:
            # a closed file raises the latter
            self.error, block = OSError(0, str(err)) if isinstance(err, ValueError) else err, b""
        self._at += len(block)
        return block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True


class Extents(Seekable):
    """Stretches of a file after a head, as if there were nothing else: what is clean of a damaged or joined file."""

    def __init__(self, file: BinaryIO, head: bytes, stretches: list[tuple[int, int]]) -> None:
        """stretches: (offset, size) in bytes."""
        self._file, self._head = file, head
        self._stretches = stretches
        starts = np.cumsum([len(head), *(size for _, size in stretches)])
        self._starts, self._size = starts, int(starts[-1])
        self._at = 0
        self.error = None

    def read(self, count: int = -1) -> bytes:
        left = self._size - self._at if count < 0 else min(count, self._size - self._at)
        parts = []
        while left > 0:
            if self._at < len(self._head):
                part = self._head[self._at : self._at + left]
            else:
                index = int(np.searchsorted(self._starts, self._at, side="right")) - 1
                inside = self._at - int(self._starts[index])
                offset, size = self._stretches[index]
                try:
                    self._file.seek(offset + inside)
                    part = self._file.read(min(left, size - inside))
                except (OSError, ValueError) as err:
                    self.error, part = OSError(0, str(err)) if isinstance(err, ValueError) else err, b""
            if not part:
                break
            parts.append(part)
            self._at += len(part)
            left -= len(part)
        return b"".join(parts)
