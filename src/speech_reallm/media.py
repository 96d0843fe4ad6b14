"""Files that libsndfile does not know, video among them, by way of PyAV (FFmpeg); and the door to any file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .audio import AudioFile, AudioWarning, UnknownFormat, check_rate, check_samples
from .errors import UserError
from .extras import install_command

# Containers that hold their own data. Playlists and the like could make FFmpeg open other files or addresses.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,"
    "mpeg,mpegts,mpegtsraw,mxf,nut,ogg,rm,tta,voc,w64,wav,wv"
)
# Times in a file may jump. A gap up to this is filled with silence, lest words be early; a longer one is an error.
MAX_GAP = 600.0
# times of frames are rounded, and encoders pad: less than this is no gap
_LEAST_GAP = 0.1


def open_audio(path: str | Path) -> AudioFile | MediaFile:
    """Open a sound or video file with whatever can read it.

    Raises UserError if it is missing, no audio, or needs PyAV and that is not installed.
    """
    try:
        return AudioFile(path)
    except UnknownFormat:
        return MediaFile(path)


class MediaFile:
    """The first sound track of a video or audio file, read block by block; what `AudioFile` is for others.

    Attributes: `rate` (Hz), `duration` (seconds by the file's own account, 0 if it gives none, until all of
    it has been read). Times count from where the picture begins, so that subtitles fit.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file. Raises UserError if PyAV is missing, and if there is no sound in the file."""
        self.path = Path(path)
        self._av = av = _import_av(path)
        try:
            self._container = av.open(
                str(self.path),
                metadata_errors="ignore",
                container_options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"},
            )
        except (av.FFmpegError, OSError, ValueError):
            raise UserError(f"{path} is neither audio nor video that can be read") from None
        try:
            # a codec that FFmpeg does not know, or a damaged header, leaves a track without a decoder
            tracks = [track for track in self._container.streams.audio if track.codec_context is not None]
            if not tracks:
                raise UserError(f"{path} has no sound track that can be decoded")
            self._track = tracks[0]
            # damaged headers give zero or nonsense
            self.rate = check_rate(self._track.codec_context.sample_rate or 0, str(path))
        except UserError:
            self.close()
            raise
        self._resampler: Any = None
        self._kind: Any = None
        self._start = (self._container.start_time or 0) / 1e6
        self.duration = max(0.0, (self._container.duration or 0) / 1e6)

    def blocks(self, seconds: float = 0.25) -> Iterator[np.ndarray]:
        """Mono float32 blocks [n <= seconds * rate].

        Raises UserError where nothing can be decoded. Parts that are damaged are left out, with an
        AudioWarning.
        """
        size = max(1, int(seconds * self.rate))
        total = 0
        for samples in self._sound():
            for start in range(0, len(samples), size):
                block = samples[start : start + size]
                total += len(block)
                yield block
        if not total:
            raise UserError(f"{self.path} holds no audio that can be decoded")
        self.duration = total / self.rate

    def _sound(self) -> Iterator[np.ndarray]:
        """Mono samples [n], a frame of the codec at a time; silence where there is a gap."""
        done = 0
        for frame in self._frames():
            if frame.time is not None:
                gap = frame.time - self._start - done / self.rate
                if gap > MAX_GAP:
                    self._warn(f"has a gap of {gap:.0f} s at {done / self.rate:.1f} s; leaving it out")
                    self._start += gap
                elif gap > _LEAST_GAP:
                    # piece by piece: a gap must not take memory
                    for _ in range(int(gap)):
                        done += self.rate
                        yield np.zeros(self.rate, np.float32)
                    rest = int((gap % 1) * self.rate)
                    done += rest
                    yield np.zeros(rest, np.float32)
            for part in self._resample(frame):
                done += len(part)
                yield part
        yield from self._resample(None)

    def _frames(self) -> Iterator[Any]:
        damaged = 0
        packets = self._container.demux(self._track)
        while True:
            try:
                packet = next(packets)
                yield from packet.decode()
            except StopIteration:
                break
            except self._av.EOFError:
                break
            except self._av.FFmpegError:
                damaged += 1
                # a file that gives errors for ever
                if damaged > 1000:
                    break
        if damaged:
            self._warn("is damaged in places; using what can be decoded")

    def _resample(self, frame: Any) -> Iterator[np.ndarray]:
        """A frame of any layout, type and rate -> mono float32 at the rate of the file; None: what is left."""
        if frame is not None:
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            # some broadcasts change it on the way
            if self._kind != kind:
                self._kind = kind
                # FFmpeg knows how to bring surround sound, where speech is in the middle, down to two channels;
                # down to one it would be louder than the average that other files get
                layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
                self._resampler = self._av.AudioResampler(format="fltp", layout=layout, rate=self.rate)
            frame.pts = None
        if self._resampler is None:
            return
        try:
            parts = self._resampler.resample(frame)
        except (self._av.FFmpegError, ValueError):
            # a frame of a damaged file that contradicts itself
            self._kind, parts = None, []
        for part in parts:
            samples = part.to_ndarray().mean(axis=0, dtype=np.float32)
            check_samples(samples, str(self.path))
            yield samples

    def _warn(self, message: str) -> None:
        warnings.warn(f"{self.path} {message}", AudioWarning, stacklevel=3)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> MediaFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _import_av(path: str | Path) -> Any:
    try:
        import av
    except ImportError:
        raise UserError(
            f"{path} is not audio that can be read as it is (WAV, FLAC, MP3, Ogg, Opus, ...); for video, M4A and "
            f"many more: {install_command('av')}"
        ) from None
    # FFmpeg would write to standard error of damaged files
    av.logging.set_level(None)
    return av
