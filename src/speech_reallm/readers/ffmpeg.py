"""Video and every other sound by way of PyAV (FFmpeg): MP4, M4A, WebM, Matroska, AAC, AMR, WMA, MPEG-TS, ..."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..audio import AudioNotice, check_rate
from ..errors import UserError
from .frames import LEAST_GAP, import_av, sound_of
from .items import ByteReader, Gap, Item, Problem, Rest, Seekable, UnknownFormat, cut_short

# Containers that hold their own data. Playlists and the like could make FFmpeg open other files or addresses.
_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,live_flv,loas,m4v,matroska,webm,mov,mp4,"
    "m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,mpegtsraw,mxf,nut,ogg,rm,tta,voc,w64,wav,wv"
)
# formats whose header gives the length; elsewhere FFmpeg estimates it
_PROMISING = frozenset(
    {"matroska", "webm", "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "asf", "tta", "ape", "wv", "caf"}
)
# formats of mere frames, whose times are counted and not written: a hole shows in the bytes alone
_COUNTED = frozenset({"aac", "ac3", "eac3", "dts", "amr", "amrnb", "amrwb", "mp3", "gsm", "loas"})
# formats whose packets lie one after another in the order of time
_IN_ORDER = frozenset({"matroska", "webm", "mpegts", "flv", "avi", "asf", "mpeg", "nut", "ogg"})
# bytes between two packets that are headers of the container
_OVERHEAD = 2000
# what is missing at the end must be longer, seconds: lengths are rounded to packets, and of the longest track
_LEAST_MISSING = 0.3
MAX_DAMAGED = 1000


class FfmpegReader:
    """One sound track. Raises UnknownFormat if FFmpeg does not know the file, UserError where it has no sound."""

    def __init__(
        self,
        data: ByteReader,
        name: str,
        *,
        track: int | None = None,
        notify: Callable[[str, type[AudioNotice] | None], None],
    ) -> None:
        """track: number of the sound track from 1; None: the one that players take. Raises ImportError."""
        self._av = av = import_av()
        self._data, self._name = data, name
        self._head = data.peek(64)
        self._bytes = Seekable(data) if data.size is not None else Rest(data)
        try:
            self._container = av.open(
                self._bytes,
                metadata_errors="ignore",
                container_options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"},
            )
        except (av.FFmpegError, OSError, ValueError):
            raise UnknownFormat(self._why()) from None
        try:
            self._choose(track, notify)
            # damaged headers give zero or nonsense
            self.rate = check_rate(self._track.codec_context.sample_rate or 0, name)
        except UserError:
            self.close()
            raise
        self.channels = self._track.codec_context.channels or 1
        self._kinds = frozenset(self._container.format.name.split(","))
        self._start = (self._container.start_time or 0) / 1e6
        self.duration = max(0.0, (self._container.duration or 0) / 1e6)

    def close(self) -> None:
        self._container.close()

    def _why(self) -> str:
        if self._head[4:8] == b"ftyp":
            return (
                f"{self._name} is an MP4 that is cut short or still being written: its index, which comes last, "
                "is missing"
                if self._data.size is not None
                else f"{self._name} is an MP4 whose index comes last; save it to a file first"
            )
        return f"{self._name} is neither audio nor video that can be read"

    def _choose(self, track: int | None, notify: Callable[[str, type[AudioNotice] | None], None]) -> None:
        # a codec that FFmpeg does not know, or a damaged header, leaves a track without a decoder
        every = list(self._container.streams.audio)
        usable = [stream for stream in every if stream.codec_context is not None]
        if track is not None:
            if track > len(every):
                has = f"{len(every)} sound tracks" if len(every) != 1 else "one sound track"
                raise UserError(f"{self._name} has {has}: there is no track {track}")
            if every[track - 1] not in usable:
                raise UserError(f"{self._name}: track {track} cannot be decoded")
            self._track = every[track - 1]
            return
        if not usable:
            raise UserError(f"{self._name} has no sound track that can be decoded")
        self._track = min(
            usable, key=lambda stream: (_aside(stream), not _flag(stream, "default"), stream.index)
        )
        if len(every) > 1:
            number = every.index(self._track) + 1
            notify(
                f"has {len(every)} sound tracks; track {number}{_described(self._track)} is taken "
                "(--track takes another)",
                AudioNotice,
            )

    def sound(self) -> Iterator[Item]:
        done = 0.0
        for frame, lost, damaged in self._frames():
            if lost > LEAST_GAP:
                done += lost
                yield Gap(lost)
            elif frame.time is not None and not self._kinds & _COUNTED:
                gap = frame.time - self._start - done
                if gap > LEAST_GAP:
                    done += gap
                    yield Gap(gap, lost=damaged)
            frame.pts = None
            try:
                sound = sound_of(frame)
            except (self._av.FFmpegError, ValueError):
                continue
            done += len(sound.samples) / sound.rate
            yield sound
        if error := getattr(self._bytes, "error", None):
            yield Problem(f"cannot be read after {done:.1f} s ({error.strerror}); using what comes before")
        elif (promised := self._promised()) - done > max(_LEAST_MISSING, 0.01 * promised):
            yield cut_short(done, promised)
        elif self._breaks_off():
            yield cut_short(done)

    def _promised(self) -> float:
        """Seconds that the header says the track has, 0 if it says nothing."""
        if not self._kinds & _PROMISING:
            return 0.0
        track = self._track
        if track.duration and track.time_base:
            return float(track.duration * track.time_base)
        written = track.metadata.get("DURATION", "") if track.metadata else ""
        parts = written.split(":")
        try:
            if len(parts) == 3:
                return int(parts[0]) * 3600 + int(parts[1]) * 60 + float(parts[2]) - self._start
        except ValueError:
            pass
        # a picture may well be longer than the sound
        return self.duration if len(self._container.streams) == 1 else 0.0

    def _breaks_off(self) -> bool:
        """Does a Matroska file say that it is longer?"""
        if not self._kinds & {"matroska", "webm"} or self._data.size is None or isinstance(self._bytes, Rest):
            return False
        self._bytes.seek(0)
        return _segment_end(self._bytes.read(4096)) > self._data.size

    def _frames(self) -> Iterator[tuple[Any, float, bool]]:
        """Decoded frames, the seconds that were lost before each as far as bytes show it, and whether any were."""
        # all of the streams: their packets show what bytes are accounted for
        in_order = bool(self._kinds & _IN_ORDER)
        counted = bool(self._kinds & _COUNTED)
        packets = self._container.demux() if in_order else self._container.demux(self._track)
        errors, behind, damaged = 0, None, False
        # seconds and bytes of the track so far
        seconds, size, lost = 0.0, 1, 0.0
        while True:
            try:
                packet = next(packets)
                if packet.size and packet.pos is not None and packet.pos >= 0 and (in_order or counted):
                    unread = packet.pos - behind if behind is not None else 0
                    if counted and seconds and unread > 0:
                        lost += unread * seconds / size
                    damaged = damaged or unread > _OVERHEAD
                    behind = max(behind or 0, packet.pos + packet.size)
                if packet.stream_index != self._track.index:
                    continue
                size += packet.size
                if packet.is_corrupt:
                    damaged = True
                frames = packet.decode()
            except (StopIteration, self._av.EOFError):
                return
            except (self._av.FFmpegError, ValueError, AttributeError):
                # the last: a damaged container that turns its track into one of another kind
                damaged = True
                errors += 1
                # a file that gives errors for ever
                if errors > MAX_DAMAGED:
                    return
                continue
            for frame in frames:
                if frame.sample_rate:
                    seconds += frame.samples / frame.sample_rate
                yield frame, lost, damaged
                lost, damaged = 0.0, False


def _flag(stream: Any, name: str) -> bool:
    try:
        return bool(stream.disposition & getattr(type(stream.disposition), name))
    except AttributeError:
        return False


def _aside(stream: Any) -> bool:
    """Is this a comment, or a description for those who do not see?"""
    title = str((stream.metadata or {}).get("title", "")).lower()
    marked = any(_flag(stream, name) for name in ("comment", "visual_impaired", "descriptions", "karaoke"))
    return marked or any(word in title for word in ("comment", "description"))


def _described(stream: Any) -> str:
    words = [str((stream.metadata or {}).get(key, "")) for key in ("language", "title")]
    if _flag(stream, "default"):
        words.append("the default one")
    known = ", ".join(
        "".join(c for c in word if c.isprintable())[:40] for word in words if word and word != "und"
    )
    return f" ({known})" if known else ""


def _segment_end(head: bytes) -> int:
    """Where the segment of a Matroska file ends by its own account, 0 if it says nothing."""
    at = 0
    for _ in range(4):
        name, at = _ebml(head, at, keep=True)
        size, at = _ebml(head, at, keep=False)
        if name is None or size is None:
            return 0
        if name == 0x18538067:
            return at + size
        at += size
    return 0


def _ebml(data: bytes, at: int, keep: bool) -> tuple[int | None, int]:
    """A number of EBML and where it ends; None for one that is not known. keep: with the marker of its length."""
    if at >= len(data) or not data[at]:
        return None, at
    length = 9 - data[at].bit_length()
    raw = int.from_bytes(data[at : at + length], "big")
    value = raw & (1 << 7 * length) - 1
    if not keep and value == (1 << 7 * length) - 1:
        return None, at + length
    return raw if keep else value, at + length
