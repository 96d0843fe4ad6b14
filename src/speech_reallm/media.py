"""The one door to sound: a file, an upload or a pipe becomes blocks of mono samples, whatever it holds.

Which library is trusted with what:

| what | found and checked by | decoded by |
| --- | --- | --- |
| WAV, RF64, RIFX, W64, AIFF, AU, CAF with PCM, float, mu-law or A-law | `readers.pcm` | `readers.pcm` |
| MP3, FLAC, Ogg | `readers.mpeg`, `flac`, `ogg` | PyAV; libsndfile without it |
| other codecs in these containers, VOC, Sphere | libsndfile | libsndfile |
| MP4, M4A, WebM, Matroska, AAC, AMR, WMA, ... | PyAV | PyAV |
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from .audio import AudioNotice, AudioWarning, Resampler, check_rate, scrub
from .channels import Mixer, parse_channel
from .errors import UserError
from .extras import install_command
from .readers.ffmpeg import FfmpegReader
from .readers.flac import flac_frames
from .readers.frames import FramedReader, import_av
from .readers.items import ByteReader, Gap, Sound, UnknownFormat
from .readers.mpeg import MAX_JUNK as MAX_TAG
from .readers.mpeg import header, is_mpeg, mpeg_frames, tag_size
from .readers.ogg import ogg_frames
from .readers.pcm import PcmReader, RawReader, is_pcm
from .readers.sndfile import SndfileFramedReader, SndfileReader

# Times in a file may jump. A gap up to this is filled with silence, lest words be early; a longer one is left out.
MAX_GAP = 600.0
# places of damage that are told one by one
_TOLD_PLACES = 3


def open_audio(
    source: str | Path | BinaryIO,
    *,
    name: str | None = None,
    channel: str | int | None = None,
    track: int | None = None,
    raw_rate: int | None = None,
    on_warning: Callable[[str, type[AudioWarning]], None] | None = None,
) -> DecodedAudio:
    """Open sound or video with whatever can read it.

    source: a path (a named pipe is one, too), or a binary file, which need not be seekable and stays open. name: what
    to call it in messages. channel: the one to take, a number from 1 or left, right, center; None: as `channels`
    mixes them. track: number of the sound track from 1; None: the one that players take. raw_rate: the bytes are 16-bit
    samples, little endian, mono, at so many Hz. on_warning: called instead of `warnings.warn`. Raises UserError if it
    is missing, no audio, or needs PyAV and that is not installed.
    """
    options: dict[str, Any] = {
        "channel": channel,
        "track": track,
        "raw_rate": raw_rate,
        "on_warning": on_warning,
    }
    if channel is not None:
        parse_channel(channel)
    if track is not None and track < 1:
        raise UserError("track must be a number from 1")
    if isinstance(source, (str, Path)):
        name = name or str(source)
        file = _open_file(Path(source), name)
        try:
            return DecodedAudio(file, name, owned=True, **options)
        except BaseException:
            file.close()
            raise
    return DecodedAudio(source, name or "the audio", **options)


def is_pipe(path: str | Path) -> bool:
    """Is this a named pipe or a device, which can be read once and may have to be waited for?"""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _open_file(path: Path, name: str) -> BinaryIO:
    try:
        if path.is_dir():
            raise UserError(f"{name} is a folder; name audio files")
        if not path.exists():
            raise UserError(f"{name}: no such file")
        if path.is_file() and path.stat().st_size == 0:
            raise UserError(f"{name} is empty")
        # there is no format to be found in such a file
        if path.suffix.lower() == ".raw" and path.is_file():
            raise UserError(f"{name} is raw samples; pipe it in with --rate HZ, or convert it to WAV")
        return path.open("rb")
    except OSError as err:
        raise UserError(f"cannot read {name}: {err.strerror}") from None
    except ValueError:
        raise UserError(f"{name!r} is no name of a file") from None


class DecodedAudio:
    """Sound, read block by block: memory does not grow with its length.

    Attributes: `rate` (Hz); `channels`; `duration` (seconds by the header's account, 0 if it gives none, until all of
    it has been read); `warnings`: what turned out to be wrong so far, for people to read.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        *,
        channel: str | int | None = None,
        track: int | None = None,
        raw_rate: int | None = None,
        on_warning: Callable[[str, type[AudioWarning]], None] | None = None,
        owned: bool = False,
    ) -> None:
        """See `open_audio`. owned: the file is closed with the source."""
        self.name, self.warnings = name, list[str]()
        self._file, self._owned, self._channel = file, owned, channel
        self._on_warning = on_warning
        self._data = ByteReader(file)
        # of a pipe nothing must be held back, and nothing can be read twice
        self._live = self._data.size is None
        if raw_rate is not None:
            self._reader: Any = RawReader(self._data, check_rate(raw_rate, name))
        else:
            self._reader = self._open(track)
        try:
            self.rate = check_rate(self._reader.rate, name)
            self.channels, self.duration = self._reader.channels, self._reader.duration
            self._mixer: Mixer | None = None
            self._resampler: Resampler | None = None
            self._kind: tuple[int, int, tuple[str, ...] | None] | None = None
            # a wrong choice is told before anything is read
            if channel is not None:
                Mixer(self.rate, self.channels, choice=channel, what=name)
        except UserError:
            self._reader.close()
            raise
        # samples that were yielded; places where sound is lost, (seconds, how much); seconds of those beyond the first
        self._done = 0
        self._lost: list[tuple[float, float]] = []
        self._lost_seconds, self._lost_places = 0.0, 0
        self._bad_first, self._bad = 0.0, 0

    def _open(self, track: int | None) -> Any:
        """The reader for what the first bytes show."""
        data, name = self._data, self.name
        try:
            head = data.peek(64)
            if not head:
                raise UserError(f"{name} is empty")
            if is_pcm(head):
                self._only_track(track)
                try:
                    return PcmReader(data, name)
                except UnknownFormat as err:
                    self._again(err)
            elif framer := self._framer(head, track):
                try:
                    return self._framed(framer)
                except UnknownFormat as err:
                    self._again(err)
            # libsndfile takes everything that begins like MP3 for MP3, and is loud about it
            if not self._live and not (head[:3] == b"ID3" or header(head)):
                try:
                    return SndfileReader(self._data, name)
                except UnknownFormat:
                    self._again(None)
            return FfmpegReader(self._data, name, track=track, notify=self._notify)
        except ImportError:
            raise UserError(self._advice()) from None
        except OSError as err:
            raise UserError(f"cannot read {name}: {err.strerror}") from None

    def _framed(self, framer: Callable[[ByteReader], Iterator[Any]]) -> FramedReader:
        """PyAV decodes frame by frame and says which is damaged; libsndfile wants a file that can be sought in."""
        try:
            import_av()
        except ImportError:
            if self._live or (framer is mpeg_frames and self._is_aac()):
                raise
            return SndfileFramedReader(self._data, framer, self.name)
        return FramedReader(self._data, framer, self.name)

    def _is_aac(self) -> bool:
        head = self._data.peek(10)
        found = header(self._data.peek(10, tag_size(head)) if tag_size(head) < MAX_TAG else head)
        return found is not None and found.layer == 4

    def _framer(self, head: bytes, track: int | None) -> Callable[[ByteReader], Iterator[Any]] | None:
        if head[:4] == b"OggS":
            return partial(ogg_frames, track=track or 1)
        # FLAC may have a tag of MP3 before it
        size = tag_size(head)
        if head[:4] == b"fLaC" or (0 < size < MAX_TAG and self._data.peek(4, size) == b"fLaC"):
            self._only_track(track)
            return flac_frames
        if is_mpeg(self._data.peek(1 << 12)):
            self._only_track(track)
            return mpeg_frames
        return None

    def _only_track(self, track: int | None) -> None:
        if track is not None and track > 1:
            raise UserError(f"{self.name} has one sound track: there is no track {track}")

    def _again(self, error: UserError | None) -> None:
        """Back to the beginning for another reader. What comes through a pipe is gone."""
        if self._live:
            raise UserError(str(error)) from None
        self._data = ByteReader(self._file)

    def _advice(self) -> str:
        if self._live:
            return (
                f"{self.name} is not WAV or the like; for raw 16-bit samples add --rate HZ, for other formats save it "
                f"to a file first or {install_command('av')}"
            )
        return (
            f"{self.name} is not audio that can be read as it is (WAV, FLAC, MP3, Ogg, Opus, ...); for video, M4A and "
            f"many more: {install_command('av')}"
        )

    def _notify(self, text: str, kind: type[AudioWarning] | None = None) -> None:
        text, kind = f"{self.name} {text}", kind or AudioWarning
        if kind is not AudioNotice:
            self.warnings.append(text)
        if self._on_warning:
            self._on_warning(text, kind)
        else:
            warnings.warn(text, kind, stacklevel=3)

    def blocks(self, seconds: float = 0.25) -> Iterator[np.ndarray]:
        """Mono float32 blocks [n <= seconds * rate]; of a pipe as much as has come.

        Raises UserError where there is nothing that can be used. What is wrong later ends the sound, or is left out
        and silent, with an AudioWarning.
        """
        size = max(1, int(seconds * self.rate))
        waiting: list[np.ndarray] = []
        count = 0
        for samples in self._mono():
            waiting.append(samples)
            count += len(samples)
            if count < size and not self._live:
                continue
            joined = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
            whole = count if self._live else count - count % size
            for start in range(0, whole, size):
                yield joined[start : min(start + size, whole)]
            waiting, count = [joined[whole:]], count - whole
        if count:
            yield np.concatenate(waiting)
        self.duration = self._done / self.rate

    def _mono(self) -> Iterator[np.ndarray]:
        """Mono samples [n > 0] at the rate of the source, silence where there is a gap."""
        items = self._reader.sound()
        any_sound = False
        while True:
            try:
                item = next(items, None)
                if item is None:
                    break
                if isinstance(item, Sound):
                    samples = self._samples(item)
                    any_sound = any_sound or len(item.samples) > 0
                    yield from self._counted(samples)
                elif isinstance(item, Gap):
                    yield from self._silence(item)
                else:
                    self._notify(item.text)
            except UserError as err:
                if not any_sound:
                    raise
                self._notify(f"is read up to {self._done / self.rate:.1f} s: {err}")
                break
            except OSError as err:
                if not any_sound:
                    raise UserError(f"cannot read {self.name}: {err.strerror}") from None
                self._notify(f"cannot be read after {self._done / self.rate:.1f} s ({err.strerror})")
                break
        if self._resampler is not None:
            yield from self._counted(self._resampler.push(np.zeros(0, np.float32), last=True))
        self._tell_of_damage()
        if not any_sound:
            raise UserError(f"{self.name} holds no audio that can be decoded")
        if self._bad and self._bad >= self._done:
            raise UserError(
                f"{self.name}: NaN or infinite samples and no others; repair or convert the audio first"
            )

    def _counted(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        if len(samples):
            self._done += len(samples)
            yield samples

    def _samples(self, sound: Sound) -> np.ndarray:
        """Samples of a reader as mono [n] at the rate of the source."""
        kind = (sound.rate, sound.samples.shape[1], sound.layout)
        parts = []
        if kind != self._kind:
            if self._resampler is not None:
                parts.append(self._resampler.push(np.zeros(0, np.float32), last=True))
            self._begin(*kind)
        clean, bad = scrub(sound.samples, f"{self.name} at {self._done / self.rate:.1f} s")
        if bad:
            self._bad_first = self._bad_first if self._bad else self._done / self.rate
            self._bad += bad
        assert self._mixer is not None, "_begin() sets it"
        mono = self._mixer.push(clean)
        parts.append(mono if self._resampler is None else self._resampler.push(mono))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _begin(self, rate: int, channels: int, layout: tuple[str, ...] | None) -> None:
        """Another part of the file may have another rate and other channels."""
        check_rate(rate, f"{self.name} at {self._done / self.rate:.1f} s")
        first = self._kind is None
        self._kind = (rate, channels, layout)
        options: dict[str, Any] = {"what": self.name, "notify": self._notify_of_channels}
        try:
            self._mixer = Mixer(rate, channels, layout, choice=self._channel, **options)
        except UserError:
            if first:
                raise
            # a later part has fewer channels
            self._mixer = Mixer(rate, channels, layout, **options)
        self._resampler = Resampler(rate, self.rate) if rate != self.rate else None

    def _notify_of_channels(self, text: str) -> None:
        self._notify(text, AudioNotice)

    def _silence(self, gap: Gap) -> Iterator[np.ndarray]:
        at = self._done / self.rate
        if gap.lost:
            self._lost_places += 1
            self._lost_seconds += gap.seconds
            if len(self._lost) < _TOLD_PLACES:
                self._lost.append((at, gap.seconds))
        if gap.seconds > MAX_GAP:
            self._notify(f"has a gap of {gap.seconds:.0f} s at {at:.1f} s; it is left out")
            return
        left = round(gap.seconds * self.rate)
        # piece by piece: a gap must not take memory
        while left > 0:
            part = min(left, self.rate)
            yield from self._counted(np.zeros(part, np.float32))
            left -= part

    def _tell_of_damage(self) -> None:
        """One line for all places: a file that is damaged all over must not fill the screen."""
        if self._lost_places == 1:
            at, seconds = self._lost[0]
            self._notify(f"is damaged at {at:.1f} s: {_length(seconds)} of sound are lost")
        elif self._lost_places:
            places = ", ".join(f"{at:.1f} s ({_length(seconds)})" for at, seconds in self._lost)
            more = ", ..." if self._lost_places > len(self._lost) else ""
            self._notify(
                f"is damaged in {self._lost_places} places: {_length(self._lost_seconds)} of sound are lost, at "
                f"{places}{more}"
            )
        if self._bad:
            self._notify(
                f"has NaN, infinite or far too large samples ({self._bad} of them, from {self._bad_first:.1f} s on); "
                "they are taken for silence"
            )

    def close(self) -> None:
        """Close what was opened here."""
        self._reader.close()
        if self._owned:
            self._file.close()

    def __enter__(self) -> DecodedAudio:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _length(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"
