"""What libsndfile reads: whole files of rarer kinds, and MP3, FLAC and Ogg where PyAV is not installed.

It ends at the first damage and at the end of the first of several joined files. So what the framers have found goes to
it in stretches: frames without anything between them, as a file of their own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from ..channels import OGG_LAYOUTS
from .frames import LEAST_GAP, Cut, FramedReader, Lost, Packet, Start
from .items import ByteReader, Extents, Gap, Item, Problem, Seekable, Sound, UnknownFormat, cut_short, shorter
from .mpeg import DECODER_DELAY

_BLOCK = 16384
# a length of a streamed file, which promises nothing
_UNKNOWN = 1 << 40


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """soundfile seeks to where it is after every read; in MP3 that upsets the decoder and is audible."""

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on standard error from libraries in C; only where no other thread could want to write there.

    mpg123, which libsndfile uses for MP3, complains of damaged frames there and cannot be told not to.
    """
    kept = -1
    if threading.active_count() == 1:
        with contextlib.suppress(OSError):
            kept = os.dup(2)
    if kept < 0:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class SndfileReader:
    """A whole file by libsndfile. Raises UnknownFormat for what it does not read."""

    def __init__(self, data: ByteReader | Seekable, name: str) -> None:
        """data: bytes that can be sought in."""
        self._bytes = Seekable(data) if isinstance(data, ByteReader) else data
        try:
            with quiet():
                self._file: Any = _Sequential(self._bytes)
        except (soundfile.LibsndfileError, TypeError, ValueError, RuntimeError):
            raise UnknownFormat(f"{name} is not audio that can be read") from None
        self.rate, self.channels = self._file.samplerate, self._file.channels
        # a cut Ogg file reports no length at all, so that zero is no reason to give up yet
        self.frames = self._file.frames if 0 < self._file.frames < _UNKNOWN else 0
        self.duration = self.frames / self.rate if self.rate else 0.0
        self._broken = False

    def close(self) -> None:
        self._file.close()

    def sound(self) -> Iterator[Item]:
        total = 0
        while True:
            block = self.read()
            if block is None:
                yield Problem(f"is damaged after {total / self.rate:.1f} s; using what comes before")
                return
            if not len(block):
                break
            total += len(block)
            yield Sound(block, self.rate)
        # compressed files only estimate their length, hence the margin
        if self.frames and total < 0.9 * self.frames:
            yield cut_short(total / self.rate, self.duration)

    def read(self) -> np.ndarray | None:
        """The next samples [n, channels], none at the end; None where they cannot be decoded."""
        if self._broken:
            return None
        # no codec makes these, so that they show how far it came
        buffer = np.full((_BLOCK, self.channels), np.nan, np.float32)
        try:
            # read() would trust the length in the header, which a cut file gets wrong
            with quiet():
                count = self._file.buffer_read_into(buffer, dtype="float32")
        except (soundfile.LibsndfileError, RuntimeError):
            self._broken = True
            unset = np.isnan(buffer).all(axis=1)
            count = int(unset.argmax()) if unset.any() else len(buffer)
            if not count:
                return None
        return buffer[:count]


class _Stretch:
    """Frames of one stream without a loss between them.

    before: seconds lost before it, None where its place shows it. Places are in samples of the stream.
    """

    def __init__(self, start: Start, before: float | None) -> None:
        self.start, self.before = start, before
        self.end: int | None = None
        self.samples = 0
        # of every frame: its place, offset and size; pages of Ogg have no place
        self.places, self.offsets, self.sizes = array("q"), array("q"), array("q")

    def add(self, packet: Packet) -> None:
        if packet.size:
            self.places.append(-1 if packet.start is None else packet.start)
            self.offsets.append(packet.offset)
            self.sizes.append(packet.size)
        self.samples += packet.samples or 0
        if packet.end is not None:
            self.end = packet.end

    def extents(self, first: int) -> list[tuple[int, int]]:
        """Where the frames from number `first` on lie: (offset, size)."""
        found: list[tuple[int, int]] = []
        for offset, size in zip(self.offsets[first:], self.sizes[first:], strict=True):
            if found and sum(found[-1]) == offset:
                found[-1] = (found[-1][0], found[-1][1] + size)
            else:
                found.append((offset, size))
        return found


class SndfileFramedReader(FramedReader):
    """What a framer finds, decoded by libsndfile; the input must be one that can be sought in."""

    def sound(self) -> Iterator[Item]:
        # seconds of the stream so far, without what is skipped at its beginning
        self._done, self._exact, self._ends_damaged = 0.0, True, False
        for stretch in self._stretches():
            if isinstance(stretch, _Stretch):
                yield from self._decode(stretch)
                self._data.resume()
            elif isinstance(stretch, Start):
                yield from self._missing(False)
                self._first, self._done, self._exact, self._ends_damaged = stretch, 0.0, True, False
            elif isinstance(stretch, Cut):
                yield from self._missing(True)
                return
            else:
                yield stretch
        yield from self._missing(False)

    def _stretches(self) -> Iterator[_Stretch | Start | Cut | Problem]:
        """The first stream is known; a Start is another one."""
        stretch = _Stretch(self._first, 0.0)
        for item in self._items:
            if isinstance(item, Packet):
                stretch.add(item)
                continue
            if stretch.offsets:
                yield stretch
                stretch = _Stretch(stretch.start, 0.0)
            if isinstance(item, Lost):
                stretch.before = item.seconds
            else:
                yield item
                if isinstance(item, Start):
                    stretch = _Stretch(item, 0.0)
        if stretch.offsets:
            yield stretch

    def _missing(self, cut: bool) -> Iterator[Item]:
        total = self._first.total
        promised = total / self._first.rate if total is not None and self._exact else 0.0
        if promised - self._done > LEAST_GAP and not cut and self._first.codec.startswith("mp"):
            yield shorter(promised - self._done)
        elif promised - self._done > LEAST_GAP:
            yield cut_short(self._done, promised)
        elif self._ends_damaged:
            yield cut_short(self._done)
        elif cut:
            yield Problem(f"is cut short after {self._done:.1f} s: it ends in the middle of a frame")

    def _decode(self, stretch: _Stretch) -> Iterator[Item]:
        start, first = stretch.start, 0
        at_start = self._done == 0.0
        if stretch.before:
            # an estimate: where the stream ends is not known any more
            self._exact = False
            yield from self._gap(stretch.before)
        while first < len(stretch.offsets):
            place = stretch.places[first]
            if place >= 0:
                yield from self._gap(place / start.rate - self._done)
            decoded = 0
            try:
                file = self._open(stretch, first)
                if stretch.end is not None and stretch.before is None:
                    # Ogg: pages say where they end, so that the samples have to be counted first
                    seconds = self._count(file)
                    file = self._open(stretch, first)
                    yield from self._gap((stretch.end - start.skip) / start.rate - seconds - self._done)
            except UnknownFormat:
                yield from self._gap(stretch.samples / start.rate)
                return
            layout = OGG_LAYOUTS.get(file.channels) if start.codec in ("opus", "vorbis") else None
            skip = 0
            if start.codec.startswith("mp") and at_start:
                # where a frame counts the others, mpg123 leaves out the delay of decoders itself
                skip = max(0, start.skip - (DECODER_DELAY if start.count_at else 0))
            self._ends_damaged = False
            while True:
                block = file.read()
                whole = block is not None
                if block is None or not len(block):
                    break
                decoded += len(block)
                skipped = min(skip, len(block))
                skip -= skipped
                yield from self._out(block[skipped:], file.rate, layout)
            file.close()
            if (place < 0 and whole) or place + decoded > stretch.places[-1] >= 0:
                return
            if place < 0:
                # nothing shows where to go on
                yield Problem(
                    f"is damaged after {self._done:.1f} s; what follows up to the next good part is left out"
                )
                return
            # the frame in which it stopped is lost
            while first < len(stretch.places) and stretch.places[first] <= place + decoded:
                first += 1
            self._ends_damaged = first == len(stretch.places)

    def _open(self, stretch: _Stretch, first: int) -> SndfileReader:
        head = bytearray(stretch.start.head)
        if at := stretch.start.count_at:
            head[at : at + 4] = len(stretch.offsets).to_bytes(4, "big")
        return SndfileReader(Extents(self._data.file, bytes(head), stretch.extents(first)), self._name)

    def _count(self, file: SndfileReader) -> float:
        """How many seconds it decodes to."""
        seconds = 0.0
        while (block := file.read()) is not None and len(block):
            seconds += len(block) / file.rate
        file.close()
        return seconds

    def _out(self, block: np.ndarray, rate: int, layout: tuple[str, ...] | None) -> Iterator[Item]:
        total = self._first.total
        if total is not None and self._exact:
            block = block[: max(0, total - round(self._done * rate))]
        self._done += len(block) / rate
        if len(block):
            yield Sound(block, rate, layout)

    def _gap(self, seconds: float) -> Iterator[Item]:
        if seconds > 0.5 / self._first.rate:
            self._done += seconds
            yield Gap(seconds)
