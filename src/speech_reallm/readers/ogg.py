"""Ogg with Opus, Vorbis, FLAC or Speex: pages by their checksums, streams one after another or side by side."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..audio import MAX_RATE, MIN_RATE
from .flac import stream_info
from .frames import Cut, Framed, Lost, Packet, Start
from .items import ByteReader, Problem

_CAPTURE = re.compile(rb"OggS\0")
MAX_PAGE = 27 + 255 + 255 * 255
# no packet of sound is larger; headers may hold a picture
MAX_PACKET = 1 << 24
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


@dataclass(frozen=True, slots=True)
class Page:
    """One page. parts: its packets or pieces of them; open: the last one goes on in the next page."""

    serial: int
    number: int
    granule: int
    continued: bool
    first: bool
    last: bool
    parts: list[bytes]
    open: bool
    raw: bytes
    offset: int


@dataclass
class _Stream:
    """A logical stream and how far its headers are known."""

    serial: int
    kind: str
    # of the file's last page, 0 if that is another stream's
    last_granule: int = 0
    headers: list[bytes] = field(default_factory=list)
    header_pages: bytes = b""
    wanted: int = 0
    start: Start | None = None
    partial: bytearray | None = None
    number: int = -1
    damaged: bool = False


def checksum(page: bytes) -> int:
    """Ogg's CRC-32 of a page whose own checksum is zeroed: zlib's with all bits in the other order."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def pages(data: ByteReader) -> Iterator[Page | Lost | Cut]:
    """All whole pages; Lost where something is between them."""
    lost = False
    while len(head := data.peek(27)) == 27:
        page = _page(head, data) if head[:5] == b"OggS\0" else None
        if page is not None:
            if lost:
                yield Lost()
                lost = False
            yield page
            data.skip(len(page.raw))
            continue
        if head[:5] == b"OggS\0" and _breaks_off(head, data):
            yield Cut()
            return
        step = data.find(_CAPTURE, 1, MAX_PAGE)
        if step < 0:
            there = len(data.buffered(MAX_PAGE))
            step = there - 4 if there == MAX_PAGE else there
        lost = True
        data.skip(step)
    if lost or data.peek(1):
        yield Cut()


def _page(head: bytes, data: ByteReader) -> Page | None:
    _, _, flags, granule, serial, number, crc, count = struct.unpack("<4sBBqIIIB", head)
    sizes = data.peek(count, 27)
    body = sum(sizes)
    raw = data.peek(27 + count + body)
    if len(raw) < 27 + count + body or checksum(raw[:22] + bytes(4) + raw[26:]) != crc:
        return None
    parts, at, begin = [], 27 + count, 27 + count
    for size in sizes:
        at += size
        if size < 255:
            parts.append(raw[begin:at])
            begin = at
    goes_on = bool(sizes) and sizes[-1] == 255
    if goes_on:
        parts.append(raw[begin:at])
    return Page(
        serial,
        number,
        granule,
        bool(flags & 1),
        bool(flags & 2),
        bool(flags & 4),
        parts,
        goes_on,
        raw,
        data.position,
    )


def _breaks_off(head: bytes, data: ByteReader) -> bool:
    """Does the input end before this page does, with no other page in it?"""
    sizes = data.peek(head[26], 27)
    total = 27 + head[26] + sum(sizes)
    return len(data.buffered(total)) < total and data.find(_CAPTURE, 1, total) < 0


def _kind(packet: bytes) -> str:
    """The codec that begins with this packet, "" for one that is not sound or not known."""
    if packet[:8] == b"OpusHead":
        return "opus"
    if packet[:7] == b"\x01vorbis":
        return "vorbis"
    if packet[:5] == b"\x7fFLAC":
        return "flac"
    if packet[:8] == b"Speex   ":
        return "speex"
    return ""


def ogg_frames(data: ByteReader, track: int = 1) -> Iterator[Framed]:
    """The packets of the sound, link by link. track: which one, from 1, where several run side by side."""
    stream: _Stream | None = None
    # of the link: its streams, how many of them are sound, and whether more of them may still begin
    serials: set[int] = set()
    sounds, beginning = 0, False
    for page in pages(data):
        if isinstance(page, Lost) and stream is not None:
            stream.damaged = True
        if not isinstance(page, Page):
            yield page
            continue
        if page.first and page.parts:
            if not beginning:
                serials, sounds, stream = set(), 0, None
            beginning = True
            serials.add(page.serial)
            if kind := _kind(page.parts[0]):
                sounds += 1
                if sounds in (1, track):
                    stream = _Stream(page.serial, kind, last_granule=_last_granule(data, page.serial))
        else:
            beginning = False
        if stream is not None and page.serial == stream.serial:
            yield from _packets(stream, page)
        elif page.serial not in serials:
            serials.add(page.serial)
            yield Problem("has a part whose beginning is lost; it is left out")


def _last_granule(data: ByteReader, serial: int) -> int:
    """How long the stream is by the last page of the file; 0 if that is of another stream, or a pipe."""
    if data.size is None:
        return 0
    try:
        data.file.seek(max(0, data.size - MAX_PAGE))
        end = data.file.read(MAX_PAGE)
        data.resume()
    except OSError:
        return 0
    at = end.rfind(b"OggS\0")
    if at < 0 or len(end) < at + 18:
        return 0
    granule, number = struct.unpack("<qI", end[at + 6 : at + 18])
    return max(0, granule) if number == serial else 0


def _packets(stream: _Stream, page: Page) -> Iterator[Framed]:
    skipped = stream.number >= 0 and page.number != stream.number + 1
    stream.number = page.number
    if skipped or stream.damaged:
        stream.damaged, stream.partial = False, None
        if stream.start is not None:
            yield Lost()
    if stream.start is None:
        stream.header_pages += page.raw
    done = []
    for index, part in enumerate(page.parts):
        if index == 0 and page.continued:
            if stream.partial is None:
                # its beginning was lost
                continue
            part = bytes(stream.partial) + part
        stream.partial = None
        if index == len(page.parts) - 1 and page.open:
            stream.partial = bytearray(part) if len(part) <= MAX_PACKET else None
            break
        done.append(part)
    for index, packet in enumerate(done):
        if stream.start is None:
            stream.headers.append(packet)
            start = _begin(stream)
            if isinstance(start, Problem):
                yield start
                stream.serial = -1
                return
            if start is not None:
                stream.start = start
                yield start
            continue
        if not packet or (stream.kind == "vorbis" and packet[0] & 1):
            continue
        ends = index == len(done) - 1 and page.granule >= 0
        yield Packet(
            data=packet,
            offset=page.offset,
            size=len(page.raw) if index == len(done) - 1 else 0,
            end=page.granule if ends else None,
            last=page.last,
        )


def _begin(stream: _Stream) -> Start | Problem | None:
    """The stream's beginning once all of its headers are there."""
    first, count = stream.headers[0], len(stream.headers)
    if stream.kind == "opus":
        if count < 2:
            return None
        if len(first) < 19:
            return Problem("has a part with a damaged header")
        channels, skip = first[9], int.from_bytes(first[10:12], "little")
        return _start(stream, "opus", 48000, channels, first, skip=skip)
    if stream.kind == "vorbis":
        if count < 3:
            return None
        if len(first) < 30 or stream.headers[2][:7] != b"\x05vorbis":
            return Problem("has a part with a damaged header")
        channels, rate = first[11], int.from_bytes(first[12:16], "little")
        laced = b"".join(b"\xff" * (len(h) // 255) + bytes([len(h) % 255]) for h in stream.headers[:2])
        return _start(stream, "vorbis", rate, channels, b"\x02" + laced + b"".join(stream.headers[:3]))
    if stream.kind == "flac":
        if stream.wanted == 0:
            stream.wanted = 1 + (int.from_bytes(first[7:9], "big") if len(first) >= 9 else 0)
        info = stream_info(first[17:51])
        if info is None:
            return Problem("has a part with a damaged header")
        if count < stream.wanted:
            return None
        return _start(stream, "flac", info.rate, info.channels, info.raw)
    if stream.wanted == 0:
        stream.wanted = 2 + (int.from_bytes(first[68:72], "little") if len(first) >= 80 else 0)
    if count < min(stream.wanted, 18):
        return None
    rate, channels = int.from_bytes(first[36:40], "little"), int.from_bytes(first[48:52], "little")
    return _start(stream, "speex", rate, channels, first)


def _start(
    stream: _Stream, codec: str, rate: int, channels: int, extradata: bytes, skip: int = 0
) -> Start | Problem:
    if not MIN_RATE <= rate <= MAX_RATE or not 1 <= channels <= 64:
        return Problem(f"has a part of {channels} channels at {rate} Hz, which cannot be read")
    return Start(
        codec=codec,
        rate=rate,
        channels=channels,
        extradata=extradata,
        head=stream.header_pages,
        skip=skip,
        estimate=stream.last_granule / rate,
    )
