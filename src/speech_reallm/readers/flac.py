"""FLAC: frames by their checked headers, so that what is lost between them is known to the sample."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..audio import MAX_RATE, MIN_RATE
from .frames import Framed, Lost, Packet, Start
from .items import ByteReader

_MAGIC = re.compile(rb"fLaC")
_NEXT = re.compile(rb"fLaC|\xff[\xf8\xf9]")
_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
_WINDOW = 1 << 16
# no frame of 16-bit sound is longer; of 24 bits and eight channels some may be
MAX_FRAME = 1 << 20
MAX_METADATA = 1 << 26


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """raw: the 34 bytes of STREAMINFO. block: samples of every block, 0 if they vary. total: samples, 0: unknown."""

    raw: bytes
    block: int
    rate: int
    channels: int
    total: int


def stream_info(raw: bytes) -> StreamInfo | None:
    """None for what cannot be one."""
    if len(raw) < 34:
        return None
    least, most = int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:4], "big")
    packed = int.from_bytes(raw[10:18], "big")
    rate, channels, total = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    if not MIN_RATE <= rate <= MAX_RATE or not 16 <= least <= most:
        return None
    return StreamInfo(raw[:34], most if least == most else 0, rate, channels, total)


@dataclass(frozen=True, slots=True)
class _Header:
    """kind: what all frames of a stream have in common. start: of the frame, in samples; size: samples."""

    kind: tuple[int, int, int]
    start: int
    size: int


def _header(data: bytearray, at: int, info: StreamInfo) -> _Header | None:
    """The header of the frame that begins here, None if none does."""
    head = bytes(data[at : at + 16])
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    size_code, rate_code, channel_code, bits_code = head[2] >> 4, head[2] & 15, head[3] >> 4, head[3] >> 1 & 7
    if size_code == 0 or rate_code == 15 or channel_code > 10 or bits_code == 3:
        return None
    number, length = _number(head[4:])
    if length == 0:
        return None
    at_end = 4 + length
    if size_code == 6:
        size = head[at_end] + 1 if len(head) > at_end else 0
        at_end += 1
    elif size_code == 7:
        size = int.from_bytes(head[at_end : at_end + 2], "big") + 1
        at_end += 2
    else:
        size = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    at_end += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if len(head) <= at_end or _crc8(head[:at_end]) != head[at_end]:
        return None
    channels = channel_code + 1 if channel_code < 8 else 2
    rate = _RATES[rate_code] if rate_code < 12 else 0
    if channels != info.channels or (rate and rate != info.rate):
        return None
    # blocks of a fixed size are counted, others say where they begin
    start = number if head[1] & 1 else number * (info.block or size)
    return _Header((rate_code, channels, bits_code), start, size)


def _number(coded: bytes) -> tuple[int, int]:
    """A number in UTF-8's manner, and its bytes; (0, 0) for what is none."""
    first = coded[0]
    if first < 0x80:
        return first, 1
    length = 8 - (first ^ 0xFF).bit_length()
    if not 2 <= length <= 7 or len(coded) < length:
        return 0, 0
    value = first & (0x7F >> length)
    for byte in coded[1:length]:
        if byte & 0xC0 != 0x80:
            return 0, 0
        value = value << 6 | byte & 0x3F
    return value, length


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def _table() -> bytes:
    table = bytearray(256)
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
        table[value] = crc
    return bytes(table)


_CRC8 = _table()


def flac_frames(data: ByteReader) -> Iterator[Framed]:
    """The frames of all files that are joined in `data`, and what is lost between them."""
    info: StreamInfo | None = None
    while True:
        at = data.find(_MAGIC, 0, _WINDOW)
        if at < 0:
            if info is not None or not data.skip(_WINDOW - 4):
                return
            continue
        data.skip(at)
        new = _metadata(data)
        if new is None:
            data.skip(4)
            continue
        info = new
        # without the length and the checksum of the whole, which a part does not have
        head = b"fLaC\x80\0\0\x22" + info.raw[:13] + bytes([info.raw[13] & 0xF0]) + bytes(20)
        yield Start(
            codec="flac",
            rate=info.rate,
            channels=info.channels,
            extradata=info.raw,
            head=head,
            total=info.total or None,
        )
        yield from _stream(data, info)


def _metadata(data: ByteReader) -> StreamInfo | None:
    """Skip all blocks before the sound; None if this is no beginning of a file."""
    head = data.peek(42)
    if len(head) < 42 or head[4] & 0x7F or int.from_bytes(head[5:8], "big") != 34:
        return None
    info = stream_info(head[8:])
    if info is None:
        return None
    data.skip(42)
    last, skipped = bool(head[4] & 0x80), 0
    while not last:
        block = data.peek(4)
        size = int.from_bytes(block[1:4], "big")
        skipped += size
        if (
            len(block) < 4
            or block[0] & 0x7F == 0x7F
            or skipped > MAX_METADATA
            or _header(data.buffered(16), 0, info)
        ):
            break
        last = bool(block[0] & 0x80)
        data.skip(4 + size)
    return info


def _stream(data: ByteReader, info: StreamInfo) -> Iterator[Framed]:
    """The frames of one file, up to the next one or the end."""
    # where the next frame begins, in samples; -1: not known
    expected = 0
    while len(buffer := data.buffered(16)) >= 6 and buffer[:4] != b"fLaC":
        current = _header(buffer, 0, info)
        if current is None or (current.start != expected and not _confirmed(data, 0, current, info)):
            # damage, or something between two files
            step = _next(data, 1, None, info)
            if step is None:
                return
            data.skip(step)
            yield Lost()
            expected = -1
            continue
        if current.start != expected:
            yield Lost()
        size = _next(data, 6, current, info)
        if size is None:
            # the last frame
            size = len(data.buffered(MAX_FRAME + 1))
            if size > MAX_FRAME:
                data.skip(6)
                expected = -1
                continue
        frame = data.peek(size)
        yield Packet(data=frame, offset=data.position, size=size, start=current.start)
        data.skip(size)
        expected = current.start + current.size


def _next(data: ByteReader, at: int, current: _Header | None, info: StreamInfo) -> int | None:
    """Where the next frame or file begins; None: nowhere before the end, or too far away.

    After a frame that is the one which it names; else, where that is lost, the first that is followed by its own next.
    """
    window = _WINDOW
    while True:
        at = data.find(_NEXT, at, window)
        if at < 0:
            at = max(1, window - 3)
            if len(data.buffered(window)) < window or window >= MAX_FRAME:
                return None
            window = min(MAX_FRAME, window * 4)
            continue
        buffer = data.buffered(window)
        if buffer[at] == 0x66:
            if stream_info(bytes(buffer[at + 8 : at + 42])):
                return at
        elif found := _header(buffer, at, info):
            if current is not None and found.start == current.start + current.size:
                return at
            if (current is None or found.start > current.start) and _confirmed(data, at, found, info):
                return at
        at += 1


def _confirmed(data: ByteReader, at: int, found: _Header, info: StreamInfo) -> bool:
    """Is the frame that begins at `at` followed by its next one, another file, or the end?"""
    here, window = at + 6, at + _WINDOW
    while True:
        here = data.find(_NEXT, here, window)
        if here < 0:
            here = max(at + 6, window - 3)
            if len(data.buffered(window)) < window:
                # the last frame of the input
                return True
            if window - at >= MAX_FRAME:
                return False
            window += _WINDOW
            continue
        buffer = data.buffered(window)
        if buffer[here] == 0x66:
            return True
        following = _header(buffer, here, info)
        if following and following.start == found.start + found.size:
            return True
        here += 1
