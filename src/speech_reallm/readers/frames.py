"""What the framers of MP3, FLAC and Ogg yield, and how it is decoded: by PyAV, or by libsndfile where that is missing.

A framer finds the frames of a codec in a stream of bytes, whatever is before, between and behind them. So a file may be
joined from several, its middle may be lost, and what is lost is known to the sample.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..audio import MAX_CHANNELS
from ..errors import UserError
from .items import ByteReader, Gap, Item, Problem, Sound, UnknownFormat, cut_short, shorter

# a gap between what is decoded and what the file says is rounding up to here, seconds
LEAST_GAP = 0.1
# PyAV looks for the planes of a frame up to a null pointer, which from here on need not be there
PLANES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A new stream begins.

    codec: FFmpeg's name; rate: Hz; extradata: as FFmpeg wants it; head: bytes that libsndfile wants before the frames.
    count_at: where in the head libsndfile wants the number of frames, 0: nowhere.
    skip: samples at the beginning that are no sound; total: samples without those, if that is known. estimate: of
    the seconds in the file, 0 if there is none.
    """

    codec: str
    rate: int
    channels: int
    extradata: bytes = b""
    head: bytes = b""
    count_at: int = 0
    skip: int = 0
    total: int | None = None
    estimate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One frame of the codec. offset, size: where libsndfile finds it (and its page), size 0 for none.

    samples: how many it decodes to, if the framer can tell; start, end: its place in the stream, in samples, if known.
    """

    data: bytes
    offset: int
    size: int
    samples: int | None = None
    start: int | None = None
    end: int | None = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Bytes that are no frame. seconds: how long they lasted, None where the next packet's place shows it."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The input ends in the middle of a frame."""


Framed = Start | Packet | Lost | Cut | Problem


class FramedReader:
    """Decodes what a framer finds. Raises UnknownFormat where there is no decoder."""

    def __init__(self, data: ByteReader, framer: Callable[[ByteReader], Iterator[Framed]], name: str) -> None:
        self._items = framer(data)
        self._data, self._name = data, name
        first = next((item for item in self._items if isinstance(item, Start)), None)
        if first is None:
            raise UnknownFormat(f"{name} has no frames that can be decoded")
        self._first = first
        self.rate, self.channels = self._first.rate, self._first.channels
        total = self._first.total
        self.duration = total / self.rate if total else self._first.estimate

    def close(self) -> None:
        """Nothing is held."""

    def sound(self) -> Iterator[Item]:
        part = _Part(self._first, self._decoder(self._first))
        cut = False
        for item in self._items:
            if isinstance(item, Start):
                yield from part.flush()
                yield from part.missing(cut)
                cut = False
                part = _Part(item, self._decoder(item))
            elif isinstance(item, Packet):
                yield from part.add(item)
            elif isinstance(item, Lost):
                yield from part.lost(item.seconds)
            elif isinstance(item, Problem):
                yield item
            else:
                cut = True
        yield from part.flush()
        yield from part.missing(cut)

    def _decoder(self, start: Start) -> Any:
        av = import_av()
        try:
            return AvDecoder(av, start)
        except (av.FFmpegError, ValueError) as err:
            raise UserError(f"{self._name} has a header that cannot be used ({err})") from None


class AvDecoder:
    """Packets to samples, by FFmpeg."""

    def __init__(self, av: Any, start: Start) -> None:
        self._av = av
        # what FFmpeg makes of the first packet of Vorbis, which only begins an overlap
        self._drop_first = start.codec == "vorbis"
        self._context = av.CodecContext.create(start.codec, "r")
        self._context.sample_rate = start.rate
        if start.extradata:
            self._context.extradata = start.extradata
        if start.codec == "flac":
            # a frame with a wrong checksum would be a burst of noise
            self._context.options = {"err_detect": "crccheck+explode"}
        self._context.thread_count = 1
        # the framer knows what is to be left out
        with contextlib.suppress(AttributeError, ValueError):
            self._context.flags2 |= 1 << 29
        self._context.open()

    def decode(self, data: bytes) -> list[Sound] | None:
        """Samples of one packet, None if it is damaged."""
        try:
            sounds = [sound_of(frame) for frame in self._context.decode(self._av.Packet(data))]
        except (self._av.FFmpegError, ValueError):
            return None
        if self._drop_first:
            self._drop_first, sounds = False, []
        return sounds


def sound_of(frame: Any) -> Sound:
    """A frame of PyAV as float32 [n, channels]. Raises ValueError or FFmpegError for one that contradicts itself."""
    channels = frame.layout.nb_channels
    if not 1 <= channels <= MAX_CHANNELS or frame.sample_rate <= 0:
        raise ValueError(f"a frame of {channels} channels at {frame.sample_rate} Hz")
    names = tuple(channel.name for channel in frame.layout.channels)
    if frame.format.is_planar and channels >= PLANES:
        frame = _packed(frame)
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / (1 << (8 * samples.dtype.itemsize - 1))
    with np.errstate(over="ignore", invalid="ignore"):
        samples = samples.astype(np.float32)
    return Sound(samples, frame.sample_rate, names if len(names) == channels else None)


def _packed(frame: Any) -> Any:
    """The same samples in one plane."""
    resampler = import_av().AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
    frame.pts = None
    (packed,) = resampler.resample(frame)
    return packed


class _Part:
    """One stream of a file: where its samples lie in time."""

    def __init__(self, start: Start, decoder: Any) -> None:
        self._start, self._decoder = start, decoder
        self._rate = start.rate
        # samples before this one have been yielded or skipped, counted from the first of the codec
        self._at: int | None = None
        self._done = 0
        self._skip = start.skip
        self._damaged = False
        # is the length that the header gives still to be trusted, and do frames say where they belong?
        self._exact, self._placed = True, False
        self._waiting: list[Packet] = []

    @property
    def seconds(self) -> float:
        return self._done / self._rate

    def add(self, packet: Packet) -> Iterator[Item]:
        self._waiting.append(packet)
        # packets of a page wait for the one that says where the page ends
        if packet.end is not None or packet.start is not None or packet.samples is not None:
            yield from self._decode(self._waiting)
            self._waiting = []

    def flush(self) -> Iterator[Item]:
        if self._waiting:
            yield from self._decode(self._waiting)
            self._waiting = []

    def lost(self, seconds: float | None) -> Iterator[Item]:
        yield from self.flush()
        if seconds is None:
            self._damaged = True
        else:
            # an estimate: where the stream ends is not known any more
            self._exact = False
            yield from self._gap(round(seconds * self._rate), lost=True)

    def missing(self, cut: bool) -> Iterator[Item]:
        """Told where the stream should have been longer. cut: it ends in the middle of a frame."""
        total = self._start.total if self._exact else None
        promised = 0.0 if total is None else total / self._rate
        short = 0.0 if total is None else (total - self._done) / self._rate
        if short > LEAST_GAP and not cut and not self._placed:
            yield shorter(short)
        elif short > LEAST_GAP:
            yield cut_short(self.seconds, promised)
        elif cut:
            yield Problem(f"is cut short after {self.seconds:.1f} s: it ends in the middle of a frame")
        elif self._damaged:
            yield cut_short(self.seconds)

    def _decode(self, packets: list[Packet]) -> Iterator[Item]:
        sounds: list[Sound] = []
        for packet in packets:
            decoded = self._decoder.decode(packet.data)
            # AAC may come out at twice its rate
            count = sum(len(sound.samples) * self._rate // sound.rate for sound in decoded or ())
            if decoded:
                sounds += decoded
            if packet.samples is not None and packet.start is None and count < packet.samples:
                # nothing but their number says where frames belong
                yield from self._place(sounds, packet)
                sounds = []
                yield from self._gap(packet.samples - count, lost=True)
            elif decoded is None:
                self._damaged = True
        yield from self._place(sounds, packets[-1])

    def _place(self, sounds: list[Sound], packet: Packet) -> Iterator[Item]:
        count = sum(len(sound.samples) for sound in sounds)
        if not count:
            return
        start = packet.start
        if start is None and packet.end is not None:
            start = packet.end - count
        if start is not None:
            self._placed = True
            if self._at is None:
                # a stream that was joined late counts from anywhere
                self._at = 0 if packet.start is not None or self._damaged else max(0, start)
            gap = start - self._at
            if gap > 0 and (self._damaged or gap > LEAST_GAP * self._rate):
                yield from self._gap(gap, lost=self._damaged)
            elif packet.last and gap < 0:
                # the last page may end amid its last packet
                count += gap
        self._damaged = False
        for sound in sounds:
            samples = sound.samples[: max(0, count)]
            count -= len(sound.samples)
            yield from self._out(Sound(samples, sound.rate, sound.layout))

    def _out(self, sound: Sound) -> Iterator[Item]:
        samples = sound.samples
        self._at = (self._at or 0) + len(samples)
        if self._skip:
            skipped = min(self._skip, len(samples))
            self._skip -= skipped
            samples = samples[skipped:]
        total = self._start.total
        if total is not None and self._exact:
            samples = samples[: max(0, total - self._done)]
        self._done += len(samples) * self._rate // sound.rate
        if len(samples):
            yield Sound(samples, sound.rate, sound.layout)

    def _gap(self, samples: int, lost: bool) -> Iterator[Item]:
        self._at = (self._at or 0) + samples
        skipped = min(self._skip, samples)
        self._skip -= skipped
        samples -= skipped
        if self._start.total is not None and self._exact:
            samples = min(samples, self._start.total - self._done)
        if samples > 0:
            self._done += samples
            yield Gap(samples / self._rate, lost)


def import_av() -> Any:
    """PyAV, silenced. Raises ImportError."""
    import av

    # FFmpeg would write to standard error of damaged files
    av.logging.set_level(None)
    return av
