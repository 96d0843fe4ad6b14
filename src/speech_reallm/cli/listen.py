"""`reallm listen`: speech from the microphone as text, as it is spoken."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ._console import OutputLost
from .transcribe import add_model_arguments, stream_options

if TYPE_CHECKING:
    import numpy as np

    from ..events import Event, Final
    from ..microphone import Microphone
    from ..stream import Stream
    from ._signals import Interrupt

NAME = "listen"
HELP = "write down speech from the microphone while it is spoken"
EPILOG = """examples:
  reallm listen
  reallm listen --save talk.srt --save talk.json --save-audio talk.flac
  reallm listen --list
  reallm listen --device 3
  reallm listen --device USB --delay 0
  reallm listen --seconds 60 | tee minutes.txt

Ctrl-C, SIGTERM and a closed terminal end it; all that was spoken until then is written and saved. Needs
sounddevice and, on Linux, PortAudio; reallm doctor names the commands that install them.
"""
AUDIO = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}
# seconds of nothing but zeros that are worth a word: a device may be muted, or a permission missing
MUTE = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="list the microphones, then end")
    parser.add_argument(
        "--device", metavar="NAME", help="number or part of the name (default: the system's choice)"
    )
    parser.add_argument("--rate", type=int, metavar="HZ", help="sample rate (default: the device's own)")
    parser.add_argument(
        "--save",
        action="append",
        default=[],
        metavar="FILE",
        help="save the transcript: .txt, .json, .jsonl, .srt, .vtt or .ctm; may be repeated",
    )
    parser.add_argument("--save-audio", metavar="FILE", help="save the sound: .wav, .flac or .ogg")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="end after so long (default: Ctrl-C ends it)"
    )
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from ..microphone import Microphone
    from ..recognizer import Recognizer
    from ._signals import Interrupt

    if args.list:
        return _list()
    if args.seconds is not None and not args.seconds > 0:
        raise UserError("--seconds must be more than 0")
    device = int(args.device) if args.device and args.device.isdecimal() else args.device
    # whatever can be wrong is found before anybody speaks
    options = stream_options(args)
    saver = _Saver(args.save, args.save_audio)
    recognizer = Recognizer.load(args.model, threads=args.threads, delay=args.delay)
    with Interrupt() as interrupt, Microphone(device, args.rate) as microphone:
        stream = recognizer.stream(microphone.rate, history=0, options=options)
        return _listen(stream, microphone, saver, interrupt, args.seconds)


def _list() -> int:
    from ..microphone import devices

    found = devices()
    if not found:
        raise UserError("no microphone found; connect one")
    for device in found:
        mark = "*" if device.default else " "
        print(f"{mark} {device.number:3}  {device.name}  ({device.channels} channels, {device.rate} Hz)")
    return 0


def _listen(
    stream: Stream,
    microphone: Microphone,
    saver: _Saver,
    interrupt: Interrupt,
    seconds: float | None,
) -> int:
    """Returns the exit code. Raises UserError for a device that fails, after all has been saved."""
    from ..events import Final
    from ._signals import exit_code

    display = _Display(interrupt)

    def handle(events: Any) -> None:
        # saved first: the terminal may be gone
        for event in events:
            if isinstance(event, Final):
                saver.segment(event)
        for event in events:
            display.show(event)

    def stop() -> bool:
        return interrupt.stopping or (seconds is not None and stream.duration >= seconds)

    print(f"listening to {microphone.name}; Ctrl-C ends", file=sys.stderr)
    saver.open(microphone.rate)
    sounded = False
    try:
        for block in microphone.blocks(stop):
            if seconds is not None:
                block = block[
                    : max(0, round(seconds * microphone.rate) - round(stream.duration * microphone.rate))
                ]
            saver.audio(block)
            handle(stream.accept(block))
            display.level(block, stream.duration)
            before, sounded = sounded, sounded or bool(block.any())
            if not before and not sounded and MUTE <= stream.duration < MUTE + len(block) / microphone.rate:
                display.note("only silence so far: is the microphone muted, or not allowed for this program?")
    finally:
        # a signal, a device that is gone: what was spoken is kept all the same
        try:
            handle(stream.finish().events)
        finally:
            saver.close(stream.duration, stream.compute_seconds)
            display.close()
    if microphone.lost:
        print(
            f"reallm: warning: {microphone.lost:.1f} s of sound were lost: this machine is too busy or too slow "
            "for live speech; reallm doctor measures it",
            file=sys.stderr,
        )
    for path in saver.written:
        print(f"saved {path}", file=sys.stderr)
    if display.lost is not None and not interrupt.seen:
        raise display.lost
    if saver.failed:
        return 2
    return exit_code() if interrupt.seen else 0


class _Display:
    """Words in place and a level meter on a terminal; elsewhere words as they come."""

    def __init__(self, interrupt: Interrupt) -> None:
        from ._screen import Screen
        from ._terminal import LiveText

        self._interrupt = interrupt
        self._screen = Screen() if sys.stdout.isatty() else None
        self._text = LiveText()
        self.lost: OutputLost | None = None

    def show(self, event: Event) -> None:
        self._write(lambda: (self._screen or self._text).show(event))

    def level(self, block: np.ndarray, seconds: float) -> None:
        screen = self._screen
        if screen:
            self._write(lambda: screen.level(block, seconds))

    def note(self, text: str) -> None:
        screen = self._screen
        if screen:
            self._write(lambda: screen.note(text))
        else:
            print(f"reallm: warning: {text}", file=sys.stderr)

    def close(self) -> None:
        self._write(self._screen.close if self._screen else self._text.newline)

    def _write(self, what: Callable[[], None]) -> None:
        """When the terminal is gone, what was spoken until then is still saved."""
        if self.lost is None:
            try:
                what()
            except OutputLost as err:
                self.lost = err
                self._interrupt.stop()


class _Saver:
    """Saves sound and lines of text as they come, other formats at the end.

    What cannot be saved is told once and does not end the session: the words are still shown, and the rest is saved.
    """

    def __init__(self, files: list[str], audio: str | None) -> None:
        """Raises UserError for names of unknown kind and for files that are there already."""
        from ..formats import BY_SEGMENT, SUFFIXES

        kinds = {suffix: name for name, suffix in SUFFIXES.items()}
        self._formats: list[tuple[Path, str]] = []
        for path in map(Path, files):
            if path.suffix.lower() not in kinds:
                raise UserError(f"--save {path}: its ending must be one of {', '.join(kinds)}")
            self._formats.append((path, kinds[path.suffix.lower()]))
        self._audio_path = Path(audio) if audio else None
        if self._audio_path and self._audio_path.suffix.lower() not in AUDIO:
            raise UserError(f"--save-audio {audio}: its ending must be one of {', '.join(AUDIO)}")
        paths = [path for path, _ in self._formats] + ([self._audio_path] if self._audio_path else [])
        if len({path.resolve() for path in paths}) < len(paths):
            raise UserError("--save: the same file twice")
        for path in paths:
            # what was spoken once is not spoken again
            if path.exists():
                raise UserError(f"{path} is there already; name another file, or delete it first")
            if not path.resolve().parent.is_dir():
                raise UserError(f"cannot write {path}: its folder does not exist")
        self._by_segment = BY_SEGMENT
        self._segments: list[Final] = []
        # files that get a line for each segment as it comes
        self._lines: list[tuple[Path, str]] = []
        self._sound: Any = None
        self.failed = False
        self.written: list[Path] = []

    def open(self, rate: int) -> None:
        """The microphone is there: begin the files."""
        import soundfile

        try:
            for path, kind in self._formats:
                if kind in self._by_segment:
                    path.write_text("", encoding="utf-8")
                    self._lines.append((path, kind))
            if self._audio_path:
                kind = AUDIO[self._audio_path.suffix.lower()]
                self._sound = soundfile.SoundFile(self._audio_path, "w", rate, 1, format=kind)
        except (OSError, soundfile.LibsndfileError) as err:
            raise UserError(f"cannot write: {err}") from None

    def audio(self, block: np.ndarray) -> None:
        if self._sound is None:
            return
        try:
            self._sound.write(block.clip(-1, 1))
        except (OSError, RuntimeError, AssertionError) as err:
            # soundfile reports a full disk as it comes: by an assertion, or as libsndfile words it
            sound, self._sound = self._sound, None
            with contextlib.suppress(OSError, RuntimeError):
                sound.close()
            self._fail(f"{self._audio_path} ends here: it cannot be written ({err or 'no space left?'})")

    def segment(self, segment: Final) -> None:
        # an endless session without files to save must not fill the memory
        if self._formats:
            self._segments.append(segment)
        for path, kind in list(self._lines):
            try:
                with path.open("a", encoding="utf-8") as out:
                    out.write(self._by_segment[kind](segment, "microphone"))
            except OSError as err:
                # tried once more at the end, when there may be room again
                self._lines.remove((path, kind))
                self._fail(f"cannot write {path}: {err.strerror}")

    def close(self, duration: float, seconds: float) -> None:
        """Write what is not written yet. duration: of the sound, seconds: of computing."""
        from ..events import Transcript
        from ..files import write_text
        from ..formats import FORMATS

        if self._sound is not None and self._audio_path is not None:
            self._sound.close()
            self.written.append(self._audio_path)
        transcript = Transcript.of(self._segments, duration=duration, seconds=seconds, file="microphone")
        for path, kind in self._formats:
            if (path, kind) not in self._lines:
                try:
                    write_text(path, FORMATS[kind](transcript))
                except UserError as err:
                    self._fail(str(err))
                    continue
            self.written.append(path)

    def _fail(self, message: str) -> None:
        self.failed = True
        print(f"reallm: error: {message}", file=sys.stderr)
