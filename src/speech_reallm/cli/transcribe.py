"""`reallm transcribe`: audio files to text, subtitles or word times; live, if wanted."""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..events import Event, Transcript
    from ..recognizer import Recognizer

NAME = "transcribe"
HELP = "write down what is said in audio files"
EPILOG = """examples:
  reallm transcribe talk.mp3
  reallm transcribe *.wav --format json --out results.jsonl
  reallm transcribe film.flac --format srt --out subtitles/
  reallm transcribe talk.mp3 --live --delay 0
"""
# as in formats.py, which is not imported to list the choices
FORMATS = ("text", "json", "srt", "vtt", "ctm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio of any usual format, rate and length")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: %(default)s")
    parser.add_argument(
        "--out",
        metavar="FILE_OR_DIR",
        help="where to write; a folder (an existing one, or a name that ends in /) gets one file for each "
        "input (default: standard output; with --live a new file in the current folder)",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="pretend the audio is spoken just now: it comes in real time, words are shown as they are found",
    )
    parser.add_argument(
        "--model", metavar="FOLDER", help="a model folder (default: the one that is built in)"
    )
    parser.add_argument(
        "--delay",
        type=int,
        metavar="CHUNKS",
        help="label delay: fewer chunks come out sooner, more are surer (default: the model's own)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="CPU threads (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    from ..recognizer import Recognizer

    outputs = _Outputs(args.files, args.format, args.out, args.live)
    recognizer = Recognizer.load(args.model, threads=args.threads, delay=args.delay)
    code = 0
    with _Interrupt() as interrupt:
        for file in args.files:
            try:
                transcript = _recognise(recognizer, file, args.live, interrupt)
            except UserError as err:
                # the other files may be good
                sys.stdout.flush()
                print(f"reallm: error: {err}", file=sys.stderr)
                code = 2
                continue
            written = outputs.write(file, transcript)
            if args.live:
                _summary(transcript, written)
            if interrupt.seen:
                print("reallm: interrupted; what was heard until then is kept", file=sys.stderr)
                return 130
    return code


class _Interrupt:
    """Ctrl-C sets a flag, so that what has been heard can be finished; a second one stops at once."""

    def __init__(self) -> None:
        self.seen = False
        self._before: Any = None

    def __enter__(self) -> _Interrupt:
        try:
            self._before = signal.signal(signal.SIGINT, self._handle)
        except ValueError:
            # not in the main thread: Ctrl-C does not come here
            self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True


def _recognise(recognizer: Recognizer, file: str, live: bool, interrupt: _Interrupt) -> Transcript:
    from ._terminal import LiveText, Progress

    on_event: Callable[[Event], None] | None = None
    if live:
        text = LiveText()
        on_event = text.show
        started = time.monotonic()

        def on_audio(seconds: float) -> bool:
            # a block is there when its last sample has been spoken
            while not interrupt.seen and (wait := started + seconds - time.monotonic()) > 0:
                time.sleep(min(wait, 0.05))
            return not interrupt.seen

        try:
            return recognizer.transcribe(file, on_event=on_event, on_audio=on_audio)
        finally:
            text.newline()

    progress = Progress(Path(file).name, _length(file))

    def on_audio(seconds: float) -> bool:
        progress.update(seconds)
        return not interrupt.seen

    try:
        return recognizer.transcribe(file, on_audio=on_audio)
    finally:
        progress.close()


def _length(file: str) -> float:
    """Seconds of audio, for the progress bar; what is wrong with the file shows when it is read."""
    import warnings

    from ..audio import AudioFile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with AudioFile(file) as source:
                return source.duration
    except UserError:
        return 0.0


def _summary(transcript: Transcript, written: Path | None) -> None:
    delays = [word.emitted - word.end for word in transcript.words]
    lines = [f"audio            {transcript.duration:.2f} s", f"real-time factor {transcript.rtf:.3f}"]
    if delays:
        lines.append(
            f"emission delay   {statistics.median(delays):.2f} s "
            "(median; by the model's own estimate of when words end)"
        )
    if written:
        lines.append(f"transcript       {written}")
    print("\n".join(lines), file=sys.stderr)


class _Outputs:
    """Where transcripts go: standard output, one file, or a file for each input."""

    def __init__(self, files: list[str], format: str, out: str | None, live: bool) -> None:
        """Raises UserError, before anything is recognised, for a place that cannot be written to."""
        from ..formats import JOINABLE, SUFFIXES

        self._format, self._suffix = format, SUFFIXES[format]
        self._several = len(files) > 1
        self._file: Path | None = None
        self._folder: Path | None = None
        self._fresh = live and out is None
        self._used: set[Path] = set()
        if self._fresh:
            self._folder = Path()
        elif out is not None and (Path(out).is_dir() or out.endswith(("/", "\\"))):
            self._folder = Path(out)
        elif out is not None:
            self._file = Path(out)
            if self._several and format not in JOINABLE:
                raise UserError(f"--out: {format} of several files needs a folder; write --out {out}/")
        elif self._several and format not in JOINABLE:
            raise UserError(f"{format} of several files needs a folder; write --out FOLDER/")
        for file in files:
            if self._file and self._file.exists() and Path(file).exists() and self._file.samefile(file):
                raise UserError(f"--out {out} would overwrite the audio; name another file")
        try:
            if self._folder:
                self._folder.mkdir(parents=True, exist_ok=True)
            if self._file:
                self._file.write_text("", encoding="utf-8")
        except OSError as err:
            raise UserError(f"cannot write {err.filename or out}: {err.strerror}") from None

    def write(self, file: str, transcript: Transcript) -> Path | None:
        """Write one transcript; returns the file it is in, None for standard output."""
        from ..formats import FORMATS as WRITERS

        text = WRITERS[self._format](transcript)
        path = self._file or (self._path(file) if self._folder is not None else None)
        if path is None:
            if self._several and self._format == "text":
                print(f"==> {file} <==")
            print(text, end="", flush=True)
            return None
        try:
            with path.open("a" if self._file else "w", encoding="utf-8") as out:
                out.write(text)
        except OSError as err:
            raise UserError(f"cannot write {path}: {err.strerror}") from None
        return path

    def _path(self, file: str) -> Path:
        """`talk.srt` for talk.mp3; `talk.mp3.srt` or `talk-2.srt` if that name is taken."""
        assert self._folder is not None
        name = Path(file)
        names = [f"{name.stem}{self._suffix}", f"{name.name}{self._suffix}"]
        names += [f"{name.stem}-{n}{self._suffix}" for n in range(2, 10000)]
        for candidate in names:
            path = self._folder / candidate
            taken = path in self._used or (self._fresh and path.exists()) or path.resolve() == name.resolve()
            if not taken:
                self._used.add(path)
                return path
        raise UserError(f"no free name for the transcript of {file} in {self._folder}")
