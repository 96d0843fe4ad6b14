"""Uncompressed sound: WAV and its kin (RF64, BW64, RIFX, W64), AIFF, AIFF-C, AU and CAF.

Headers are taken for hints. Recorders that crash leave lengths of 0 or old ones, programs that write to a pipe leave
the largest number, and some forget the byte that pads an odd chunk. Files may also be joined end to end.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .. import g711
from ..audio import MAX_CHANNELS, MAX_RATE, MIN_RATE
from ..channels import layout_of_mask
from ..errors import UserError
from .items import ByteReader, Item, Problem, Sound, UnknownFormat, cut_short

# bytes of chunks before the sound that are skipped (pictures, names); more is no WAV that anyone writes
MAX_HEADER = 1 << 24
# from here on a 32-bit length means "not known"
_UNKNOWN_32 = 0x7FFFF000
_UNKNOWN_64 = 1 << 62
_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_CHUNK_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_\- ]{3}")
_KNOWN_CHUNKS = frozenset(
    b"fmt |data|fact|LIST|INFO|bext|iXML|cue |smpl|inst|plst|JUNK|junk|PAD |FLLR|id3 |ID3 |_PMX|afsp|PEAK|note|labl|"
    b"ltxt|chna|axml|levl|link|aXML|acid|strc|DISP|cart|minf|elm1|regn|umid|ds64|COMM|SSND|NAME|AUTH|ANNO|MARK|INST|"
    b"COMT|AESD|MIDI|APPL|FVER|(c) ".split(b"|")
)
# where another file begins amid the data of one whose length is not known
_JOINED = re.compile(
    rb"(?:RIFF|RF64|BW64|RIFX)[\s\S]{4}WAVE(?:fmt |JUNK|bext|ds64|LIST)|FORM[\s\S]{4}AIF[FC]"
)
# its first letters, or as many of them as a block of data may end with
_MAYBE_JOINED = re.compile(rb"RIFF|RF64|BW64|RIFX|FORM|(?:R|RI|RIF|RF|RF6|B|BW|BW6|F|FO|FOR)\Z")
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_WAVE = bytes.fromhex("77617665f3acd3118cd100c04f8edb8a")
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")


@dataclass(frozen=True, slots=True)
class Format:
    """What the samples are. decode: bytes of whole samples -> float32 [n]; width: bytes of one sample."""

    rate: int
    channels: int
    width: int
    decode: Callable[[bytes], np.ndarray]
    layout: tuple[str, ...] | None = None


def is_pcm(head: bytes) -> bool:
    """Do these first 64 bytes look like one of the containers that are read here?"""
    return (
        (head[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX") and head[8:12] == b"WAVE")
        or (head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"))
        or head[:16] == _W64_RIFF
        or head[:4] in (b".snd", b"caff")
    )


class PcmReader:
    """Reads what `is_pcm` recognises. Raises UnknownFormat where the samples are compressed."""

    def __init__(self, data: ByteReader, name: str) -> None:
        self._data, self._name = data, name
        # bytes of sound that are left of the part, None: all to the end
        self._left: int | None = None
        self._promised_frames: int | None = None
        # how chunks are written: le, be, caf, w64, or au, which has none
        self._kind = ""
        self._format = self._header()
        self.rate, self.channels = self._format.rate, self._format.channels
        frames = self._bytes_of_sound() // self._frame
        self.duration = frames / self.rate

    def close(self) -> None:
        """Nothing is held."""

    @property
    def _frame(self) -> int:
        return self._format.width * self._format.channels

    def _bytes_of_sound(self) -> int:
        there = self._data.left
        if self._left is None or (there is not None and there < self._left):
            return there or 0
        return self._left

    def sound(self) -> Iterator[Item]:
        """All parts; how long each is is learned on the way."""
        while True:
            yield from self._part()
            if self._more_data():
                continue
            if not is_pcm(self._data.peek(64)):
                return
            try:
                self._format = self._header()
            except UserError as err:
                yield Problem(f"has a part that cannot be read ({err})")
                return

    def _part(self) -> Iterator[Item]:
        form, frame, total = self._format, self._frame, 0
        promised = self._left
        rest = b""
        size = max(frame, (1 << 16) // frame * frame)
        while True:
            if self._left == 0 and promised and self._goes_on():
                # the writer was stopped some time after it had written the length
                yield Problem(
                    f"has a header that says {promised / frame / form.rate:.1f} s; the sound after that is read, too"
                )
                self._left = promised = None
            data = self._take(size - len(rest)) if self._left != 0 else b""
            if not data:
                break
            data = rest + data
            whole = len(data) - len(data) % frame
            data, rest = data[:whole], data[whole:]
            if data:
                total += whole
                yield Sound(form.decode(data).reshape(-1, form.channels), form.rate, form.layout)
        if promised and promised - total >= frame:
            yield cut_short(total / frame / form.rate, promised / frame / form.rate)

    def _take(self, size: int) -> bytes:
        """Bytes of sound, as many as are there; none at the end of the part."""
        if self._left is not None:
            data = self._data.some(min(size, self._left))
            self._left -= len(data)
            return data
        # of unknown length: it ends where another file begins
        data = self._data.some(size)
        match = _MAYBE_JOINED.search(data)
        if match is None:
            return data
        self._data.give_back(data[match.start() :])
        if match.start():
            return data[: match.start()]
        if _JOINED.match(self._data.peek(16)):
            self._left = 0
            return b""
        return self._data.some(1)

    def _goes_on(self) -> bool:
        """After as many bytes as the header says: is there still sound, and not another chunk or file?"""
        head = self._data.peek(64)
        # what is shorter is padding or the rest of a chunk; sectors are filled up with zeros
        if len(head) < 16 or is_pcm(head) or not any(head):
            return False
        if head[:3] in (b"TAG", b"ID3") or head[1:4] in (b"TAG", b"ID3"):
            return False
        return self._chunk_ahead() is None

    def _chunk_ahead(self) -> tuple[int, bytes, int] | None:
        """The chunk that follows the sound: bytes of padding before it, name, size."""
        for padding in range(8 if self._kind == "w64" else 2):
            if is_pcm(self._data.peek(64, padding)):
                return None
            head = self._data.peek(24, padding)
            if self._kind == "w64":
                if len(head) == 24 and head[4:12] == _W64_TAIL[:8]:
                    return padding, head[:4], max(0, struct.unpack("<Q", head[16:])[0] - 24)
                continue
            if len(head) < 12 or self._kind == "au" or not _CHUNK_NAME.fullmatch(head[:4]):
                continue
            form, end = {"le": ("<I", 8), "be": (">I", 8), "caf": (">q", 12)}[self._kind]
            size = struct.unpack(form, head[4:end])[0]
            left = self._data.left
            if head[:4] in _KNOWN_CHUNKS or 0 <= size <= (MAX_HEADER if left is None else left):
                return padding, head[:4], max(0, size)
        return None

    def _more_data(self) -> bool:
        """Skip chunks after the sound. True: another one of sound begins."""
        width = {"w64": 24, "caf": 12}.get(self._kind, 8)
        while not is_pcm(self._data.peek(64)) and (found := self._chunk_ahead()):
            padding, name, size = found
            self._data.skip(padding + width)
            if name == b"data" and self._kind in ("le", "be", "w64") and size:
                self._left = size if size < _UNKNOWN_32 else None
                return True
            if not self._data.skip(size):
                break
        # a byte of padding before the next file
        if not is_pcm(self._data.peek(64)) and is_pcm(self._data.peek(64, 1)):
            self._data.skip(1)
        return False

    def _header(self) -> Format:
        """Read up to the sound. Raises UserError."""
        head = self._data.peek(64)
        self._promised_frames, self._left = None, None
        if head[:4] == b".snd":
            return self._au()
        if head[:4] == b"caff":
            return self._caf()
        if head[:16] == _W64_RIFF:
            return self._w64()
        if head[:4] == b"FORM":
            return self._aiff(compressed=head[8:12] == b"AIFC")
        return self._wav()

    # ---- WAV

    def _wav(self) -> Format:
        head = self._exactly(12)
        order = ">" if head[:4] == b"RIFX" else "<"
        self._kind = "be" if order == ">" else "le"
        large: int | None = None
        form: Format | None = None
        for name, size in self._chunks(order):
            if name == b"data":
                break
            body = self._exactly(min(size, 64))
            if name == b"ds64" and len(body) >= 16:
                large = struct.unpack("<Q", body[8:16])[0]
            elif name == b"fmt ":
                form = self._wave_format(body, order)
            self._leave(size - len(body), size)
        if form is None:
            raise self._damaged("it does not say what its samples are")
        if size == 0xFFFFFFFF and large is not None:
            size = large if 0 < large < _UNKNOWN_64 else 0
        self._left = size if 0 < size < _UNKNOWN_32 or size == large else None
        if not size:
            # there is none, or the writer never came to say how much
            self._left = 0 if self._data.peek(4) in _KNOWN_CHUNKS else None
        return form

    def _wave_format(self, body: bytes, order: str) -> Format:
        if len(body) < 16:
            raise self._damaged("its header is too short")
        kind, channels, rate, _, block, bits = struct.unpack(f"{order}HHIIHH", body[:16])
        layout = None
        if kind == _EXTENSIBLE and len(body) >= 26:
            mask, kind = struct.unpack(f"{order}IH", body[20:26])
            layout = layout_of_mask(mask, channels)
        if kind == _PCM and channels and (bits % 8 or bits == 24) and bits <= block // channels * 8 <= 32:
            # 12, 20 or 24 bits in the upper part of more
            bits = block // channels * 8
        decoder = _wave_decoder(kind, bits, order)
        if decoder is None:
            raise UnknownFormat(
                f"{self._name}: WAV of type {kind} with {bits} bits is not read as it is; convert it to 16-bit PCM"
            )
        return self._checked(Format(rate, channels, *decoder, layout))

    # ---- Wave64

    def _w64(self) -> Format:
        self._kind = "w64"
        if self._exactly(40)[24:] != _W64_WAVE:
            raise self._damaged("it is no Wave64")
        form: Format | None = None
        skipped = 0
        while True:
            name, size = struct.unpack("<16sQ", self._exactly(24))
            size = max(0, size - 24)
            if name[:4] == b"data" and name[4:] == _W64_TAIL:
                break
            skipped += size
            if skipped > MAX_HEADER:
                raise self._damaged("its header is too long")
            body = self._exactly(size)
            if name[:4] == b"fmt ":
                form = self._wave_format(body, "<")
            self._data.skip(-size % 8)
        if form is None:
            raise self._damaged("it does not say what its samples are")
        self._left = size if 0 < size < _UNKNOWN_64 else None
        return form

    # ---- AIFF

    def _aiff(self, compressed: bool) -> Format:
        self._kind = "be"
        self._exactly(12)
        form: Format | None = None
        for name, size in self._chunks(">"):
            if name == b"SSND":
                break
            body = self._exactly(min(size, 64))
            if name == b"COMM":
                form = self._comm(body, compressed)
            self._leave(size - len(body), size)
        if form is None:
            # allowed, if unusual; libsndfile knows how
            raise UnknownFormat(
                f"{self._name}: its sound comes before its description; convert it to WAV first"
            )
        offset = struct.unpack(">I", self._exactly(8)[:4])[0]
        if not 0 <= offset <= MAX_HEADER or not self._data.skip(offset):
            raise self._damaged("its sound begins nowhere")
        frame = form.width * form.channels
        size = size - 8 - offset
        self._left = size if 0 < size < _UNKNOWN_32 - 64 else None
        if self._promised_frames and self._left is None:
            self._left = self._promised_frames * frame
        # the number of frames is written with the length, and neither before the end
        self._promised_frames = None
        return form

    def _comm(self, body: bytes, compressed: bool) -> Format:
        if len(body) < 18:
            raise self._damaged("its header is too short")
        channels, frames, bits = struct.unpack(">HIH", body[:8])
        self._promised_frames = frames if frames < _UNKNOWN_32 else 0
        kind = body[18:22] if compressed and len(body) >= 22 else b"NONE"
        bits = (bits + 7) // 8 * 8
        float_bits = {b"fl32": 32, b"FL32": 32, b"fl64": 64, b"FL64": 64}.get(kind)
        if float_bits:
            decoder = _wave_decoder(_FLOAT, float_bits, ">")
        elif kind in (b"NONE", b"twos", b"in24", b"in32"):
            # 8-bit AIFF is signed
            decoder = (1, _signed_8) if bits == 8 else _wave_decoder(_PCM, bits, ">")
        elif kind == b"sowt":
            decoder = (1, _signed_8) if bits == 8 else _wave_decoder(_PCM, bits, "<")
        elif kind == b"raw ":
            decoder = _wave_decoder(_PCM, 8, ">")
        elif kind.lower() in (b"ulaw", b"alaw"):
            decoder = _wave_decoder(_MULAW if kind.lower() == b"ulaw" else _ALAW, 8, ">")
        else:
            decoder = None
        if decoder is None:
            raise UnknownFormat(
                f"{self._name}: AIFF of type {kind!r} is not read as it is; convert it to WAV first"
            )
        return self._checked(Format(_extended(body[8:18]), channels, *decoder))

    # ---- AU

    def _au(self) -> Format:
        self._kind = "au"
        _, offset, size, kind, rate, channels = struct.unpack(">4s5I", self._exactly(24))
        decoders: dict[int, tuple[int, Callable[[bytes], np.ndarray]] | None] = {
            1: _wave_decoder(_MULAW, 8, ">"),
            2: (1, _signed_8),
            3: _wave_decoder(_PCM, 16, ">"),
            4: _wave_decoder(_PCM, 24, ">"),
            5: _wave_decoder(_PCM, 32, ">"),
            6: _wave_decoder(_FLOAT, 32, ">"),
            7: _wave_decoder(_FLOAT, 64, ">"),
            27: _wave_decoder(_ALAW, 8, ">"),
        }
        decoder = decoders.get(kind)
        if decoder is None:
            raise UnknownFormat(
                f"{self._name}: AU of type {kind} is not read as it is; convert it to WAV first"
            )
        if not 24 <= offset <= MAX_HEADER or not self._data.skip(offset - 24):
            raise self._damaged("its sound begins nowhere")
        self._left = size if 0 < size < _UNKNOWN_32 else None
        return self._checked(Format(rate, channels, *decoder))

    # ---- CAF

    def _caf(self) -> Format:
        self._kind = "caf"
        self._exactly(8)
        form: Format | None = None
        skipped = 0
        while True:
            name, size = struct.unpack(">4sq", self._exactly(12))
            if name == b"data":
                break
            skipped += max(0, size)
            if not 0 <= size <= MAX_HEADER or skipped > MAX_HEADER:
                raise self._damaged("its header is too long")
            body = self._exactly(size)
            if name == b"desc":
                form = self._desc(body)
        if form is None:
            raise self._damaged("it does not say what its samples are")
        self._exactly(4)
        self._left = size - 4 if 4 < size < _UNKNOWN_64 else None
        return form

    def _desc(self, body: bytes) -> Format:
        if len(body) < 32:
            raise self._damaged("its header is too short")
        rate, kind, flags, _, _, channels, bits = struct.unpack(">d4s5I", body[:32])
        order = "<" if flags & 2 else ">"
        decoder = None
        if kind == b"lpcm":
            decoder = (
                (1, _signed_8) if bits == 8 else _wave_decoder(_FLOAT if flags & 1 else _PCM, bits, order)
            )
        elif kind in (b"ulaw", b"alaw"):
            decoder = _wave_decoder(_MULAW if kind == b"ulaw" else _ALAW, 8, order)
        if decoder is None:
            raise UnknownFormat(
                f"{self._name}: CAF of type {kind!r} is not read as it is; convert it to WAV first"
            )
        if not math.isfinite(rate):
            raise self._damaged("no sample rate")
        return self._checked(Format(int(rate), channels, *decoder))

    # ---- what they share

    def _chunks(self, order: str) -> Iterator[tuple[bytes, int]]:
        """Names and sizes of chunks; the caller reads or leaves each."""
        skipped = 0
        while True:
            head = self._data.read(8)
            if len(head) < 8:
                raise self._damaged("its header breaks off")
            name, size = struct.unpack(f"{order}4sI", head)
            if name not in (b"data", b"SSND"):
                skipped += size
                if skipped > MAX_HEADER:
                    raise self._damaged("its header is too long")
            yield name, size

    def _leave(self, left: int, size: int) -> None:
        """Skip the rest of a chunk, and the byte that pads one of odd size, unless the writer forgot it."""
        if not self._data.skip(max(0, left)):
            raise self._damaged("its header breaks off")
        if size % 2:
            head = self._data.peek(5)
            if head[:4] in _KNOWN_CHUNKS and head[1:5] not in _KNOWN_CHUNKS:
                return
            plain = _CHUNK_NAME.fullmatch(head[:4]) and not _CHUNK_NAME.fullmatch(head[1:5])
            if head[1:5] in _KNOWN_CHUNKS or not plain:
                self._data.skip(1)

    def _checked(self, form: Format) -> Format:
        if not 1 <= form.channels <= MAX_CHANNELS:
            raise self._damaged(f"{form.channels} channels")
        if not MIN_RATE <= form.rate <= MAX_RATE:
            raise UserError(
                f"{self._name}: a sample rate of {form.rate} Hz is not within {MIN_RATE} to {MAX_RATE}"
            )
        return form

    def _exactly(self, count: int) -> bytes:
        data = self._data.read(count)
        if len(data) < count:
            raise self._damaged("its header breaks off")
        return data

    def _damaged(self, why: str) -> UserError:
        return UserError(f"{self._name} is not sound that can be used: {why}")


class RawReader:
    """16-bit samples, little endian, mono, without any header."""

    channels, duration = 1, 0.0

    def __init__(self, data: ByteReader, rate: int) -> None:
        self._data, self.rate = data, rate

    def close(self) -> None:
        """Nothing is held."""

    def sound(self) -> Iterator[Item]:
        rest = b""
        # half a sample at the end is what a writer that was stopped leaves behind
        while data := self._data.some((1 << 16) - len(rest)):
            data = rest + data
            whole = len(data) - len(data) % 2
            data, rest = data[:whole], data[whole:]
            if data:
                yield Sound(
                    np.frombuffer(data, "<i2").astype(np.float32).reshape(-1, 1) / (1 << 15), self.rate
                )


def _extended(ten: bytes) -> int:
    """An 80-bit number of AIFF as a whole number; 0 for nonsense."""
    exponent, mantissa = struct.unpack(">HQ", ten)
    shift = 16383 + 63 - (exponent & 0x7FFF)
    return mantissa >> shift if 0 <= shift < 64 and not exponent & 0x8000 else 0


def _wave_decoder(kind: int, bits: int, order: str) -> tuple[int, Callable[[bytes], np.ndarray]] | None:
    """Bytes of one sample, and how many of them become float32 [n] in [-1, 1]; None for what is not read here."""
    if kind == _PCM and bits == 8:
        return 1, lambda data: (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    if kind == _PCM and bits == 24:
        return 3, lambda data: _pcm24(data, order)
    if kind == _PCM and bits in (16, 32):
        scale = np.float32(1 / (1 << (bits - 1)))
        return bits // 8, lambda data: np.frombuffer(data, f"{order}i{bits // 8}").astype(np.float32) * scale
    if kind == _FLOAT and bits in (32, 64):
        return bits // 8, lambda data: _floats(data, f"{order}f{bits // 8}")
    if kind in (_MULAW, _ALAW) and bits == 8:
        law = "pcmu" if kind == _MULAW else "pcma"
        return 1, lambda data: g711.decode(data, law).astype(np.float32) / (1 << 15)
    return None


def _floats(data: bytes, dtype: str) -> np.ndarray:
    # what is too large for 32 bits becomes infinite and is found later
    with np.errstate(over="ignore", invalid="ignore"):
        return np.frombuffer(data, dtype).astype(np.float32)


def _signed_8(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.int8).astype(np.float32) / 128


def _pcm24(data: bytes, order: str) -> np.ndarray:
    three = np.frombuffer(data, np.uint8).reshape(-1, 3)
    if order == ">":
        three = three[:, ::-1]
    four = np.zeros((len(three), 4), np.uint8)
    four[:, 1:] = three
    return four.view("<i4")[:, 0].astype(np.float32) / (1 << 31)
