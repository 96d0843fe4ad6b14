"""MP3 (layers I and II, too) and AAC in ADTS: frames amid tags, gaps and other files joined to the first."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .frames import LEAST_GAP, Cut, Framed, Lost, Packet, Start
from .items import ByteReader

_SYNC = re.compile(rb"\xff[\xe2-\xff]|ID3|TAG|APETAGEX")
_ADTS_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_RATES = (44100, 48000, 32000)
# kbit/s by (version 1, layer)
_BITRATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# samples that every decoder of layer III is late
DECODER_DELAY = 529
# bytes that are looked through at a time, and how far the first frame may be
_WINDOW = 1 << 14
MAX_JUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """Of a frame. size: bytes; samples: in each channel; layer: 4 for AAC."""

    version: int
    layer: int
    rate: int
    channels: int
    size: int
    samples: int

    def fits(self, other: Header) -> bool:
        """Can both be frames of one stream?"""
        return (self.version, self.layer, self.rate, self.channels) == (
            other.version,
            other.layer,
            other.rate,
            other.channels,
        )


def _adts(head: bytes | bytearray) -> Header | None:
    """The header of a frame of AAC, None if these 7 bytes are none."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    rate, channels = head[2] >> 2 & 15, (head[2] & 1) << 2 | head[3] >> 6
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if rate >= len(_ADTS_RATES) or size < 8:
        return None
    return Header(head[1] >> 3 & 1, 4, _ADTS_RATES[rate], channels or 1, size, 1024 * ((head[6] & 3) + 1))


def header(four: bytes | bytearray) -> Header | None:
    """The header of a frame, None if these bytes are none (or of a free format, which nobody writes)."""
    if len(four) < 4 or four[0] != 0xFF or four[1] & 0xE0 != 0xE0:
        return None
    if four[1] & 0xF6 == 0xF0:
        return _adts(four)
    version, layer = four[1] >> 3 & 3, 4 - (four[1] >> 1 & 3)
    bitrate, rate, padding = four[2] >> 4, four[2] >> 2 & 3, four[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    speed = _BITRATES[version == 3, layer][bitrate] * 1000
    samples = {1: 384, 2: 1152, 3: 1152 if version == 3 else 576}[layer]
    size = (12 * speed // hertz + padding) * 4 if layer == 1 else samples // 8 * speed // hertz + padding
    return Header(version, layer, hertz, 1 if four[3] >> 6 == 3 else 2, size, samples)


def is_mpeg(head: bytes) -> bool:
    """Do these bytes begin with two frames, or with a tag of MP3, which AAC may have, too?"""
    if head[:3] == b"ID3":
        return True
    first = header(head)
    if first is None:
        return False
    second = header(head[first.size : first.size + 10])
    return second is not None and first.fits(second)


def mpeg_frames(data: ByteReader) -> Iterator[Framed]:
    """The frames of all files that are joined in `data`, and what is lost between them."""
    current: Header | None = None
    # bytes that were no frame; seconds and bytes of the frames so far, for how long those lasted
    junk, seconds, size = 0, 0.0, 0
    while len(head := data.peek(10)) >= 4:
        tag = tag_size(head) or _ape_size(data)
        if tag:
            if not data.skip(tag):
                return
            continue
        found = header(head)
        if found and (current is None or junk or not found.fits(current)) and not _confirmed(data, found):
            # in a stream that runs, a header of the same kind needs no second one
            found = None
        if found is None:
            step = data.find(_SYNC, 1, _WINDOW)
            step = step if step > 0 else max(1, min(_WINDOW, len(data.buffered(_WINDOW))) - 8)
            data.skip(step)
            junk += step
            if current is None and junk > MAX_JUNK:
                return
            continue
        if size and junk * seconds / size > LEAST_GAP:
            yield Lost(junk * seconds / size)
        junk = 0
        frame = data.peek(found.size)
        if len(frame) < found.size:
            yield Cut()
            return
        info = _information(frame, found)
        if info is not None or current is None or not found.fits(current):
            current = found
            seconds, size = 0.0, 0
            codec = {1: "mp1float", 2: "mp2float", 3: "mp3float", 4: "aac"}[found.layer]
            skip, total = info or (0, None)
            estimate = (data.left or 0) / found.size * found.samples / found.rate
            head, count_at = _counting_frame(frame, found)
            yield Start(
                codec=codec,
                rate=found.rate,
                channels=found.channels,
                head=head,
                count_at=count_at,
                skip=skip,
                total=total,
                estimate=estimate,
            )
        if info is None:
            seconds, size = seconds + found.samples / found.rate, size + found.size
            yield Packet(data=frame, offset=data.position, size=found.size, samples=found.samples)
        data.skip(found.size)
    if size and (data.peek(1) or junk * seconds / size > LEAST_GAP):
        # what is behind the last frame was sound, too, if it is not just an unknown tag
        yield Cut()


def _confirmed(data: ByteReader, found: Header) -> bool:
    """Does a frame of the same kind, a tag or the end follow?"""
    after = data.peek(10, found.size)
    if len(after) < 4:
        return len(data.peek(found.size)) == found.size
    following = header(after)
    return (following is not None and found.fits(following)) or after[:3] in (b"ID3", b"TAG", b"APE")


def tag_size(head: bytes) -> int:
    """Bytes of the ID3 tag that begins with these 10 bytes, 0 if none does."""
    if (
        head[:3] == b"ID3"
        and len(head) >= 10
        and head[3] < 0xFF
        and not any(byte & 0x80 for byte in head[6:10])
    ):
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return size + 10 + (10 if head[5] & 0x10 else 0)
    if head[:4] == b"TAG+":
        return 227
    return 128 if head[:3] == b"TAG" else 0


def _ape_size(data: ByteReader) -> int:
    """The same for an APE tag."""
    if data.peek(8) != b"APETAGEX":
        return 0
    size, _, flags = struct.unpack("<III", (data.peek(24) + bytes(24))[12:24])
    # with the tag itself if this is the head of one, and else its foot
    return 32 + (min(size, MAX_JUNK) if flags & 1 << 29 else 0)


def _counting_frame(frame: bytes, found: Header) -> tuple[bytes, int]:
    """A frame of no sound that says how many follow, and where it says so: mpg123 would guess it from the first."""
    if found.layer != 3:
        return b"", 0
    # without a checksum, and at a bitrate that leaves room
    four = bytes([0xFF, frame[1] | 1, 9 << 4 | (frame[2] & 0x0C), frame[3]])
    counting = header(four)
    if counting is None:
        return b"", 0
    at = 4 + _side(found)
    head = bytearray(counting.size)
    head[:4], head[at : at + 4], head[at + 7] = four, b"Info", 1
    return bytes(head), at + 8


def _side(found: Header) -> int:
    """Bytes of side information in a frame of layer III."""
    return (32 if found.channels == 2 else 17) if found.version == 3 else (17 if found.channels == 2 else 9)


def _information(frame: bytes, found: Header) -> tuple[int, int | None] | None:
    """What a Xing, Info or VBRI frame says: samples to skip at the beginning and samples of sound; None: it is none."""
    if found.layer != 3:
        return None
    side = _side(found)
    # some writers add two bytes of checksum
    for at in (4 + side, 6 + side):
        if frame[at : at + 4] in (b"Xing", b"Info"):
            break
    else:
        if frame[36:40] == b"VBRI" and len(frame) >= 54:
            count = struct.unpack(">I", frame[50:54])[0]
            return 0, count * found.samples or None
        return None
    flags = struct.unpack(">I", (frame[at + 4 : at + 8] + bytes(4))[:4])[0]
    at += 8
    count = struct.unpack(">I", (frame[at : at + 4] + bytes(4))[:4])[0] if flags & 1 else 0
    at += 4 * bool(flags & 1) + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
    skip = padding = 0
    if frame[at : at + 4] in (b"LAME", b"Lavc", b"Lavf") and len(frame) >= at + 24:
        three = int.from_bytes(frame[at + 21 : at + 24], "big")
        skip, padding = (three >> 12) + DECODER_DELAY, max(0, (three & 0xFFF) - DECODER_DELAY)
    total = count * found.samples - skip - padding
    return skip, total if count and total > 0 else None
