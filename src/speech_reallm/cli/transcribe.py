"""`reallm transcribe`: sound and video to text, subtitles or word times; live, if wanted."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..hotwords import DEFAULT_STRENGTH
from ._archive import add_archive_arguments, is_archive, transcribe_manifest
from ._console import OutputLost
from ._outputs import FORMATS, parse_formats

if TYPE_CHECKING:
    import numpy as np

    from ..batch import Result
    from ..events import Event, Transcript
    from ..media import DecodedAudio
    from ..options import StreamOptions
    from ..recognizer import Recognizer
    from ._inputs import Input
    from ._outputs import Outputs
    from ._signals import Interrupt
    from ._terminal import LiveText

NAME = "transcribe"
HELP = "write down the speech in sound or video files"
EPILOG = """examples:
  reallm transcribe talk.mp3
  reallm transcribe film.mp4 --format srt,vtt --out subtitles/
  reallm transcribe recordings/ --format json,text --out transcripts/
  reallm transcribe talk.mp3 --numbers digits --hotwords names.txt
  reallm transcribe *.wav --format jsonl --out results.jsonl
  reallm transcribe talk.mp3 --live --delay 0
  reallm transcribe call.wav --channel left
  arecord -q -f S16_LE -r 16000 | reallm transcribe - --live
  reallm transcribe --manifest calls.jsonl --shard 0/8 --out transcripts/
  ffmpeg -v error -i rtmp://example.org/talk -f s16le -ar 16000 -ac 1 - | reallm transcribe - --rate 16000

Ctrl-C, SIGTERM and a closed terminal end it; what was recognised until then is written. With several files
it goes on with the next one if one cannot be read, and exits with 2 in the end.
"""
# a step of a live stream, seconds; short, for a block comes when its last sample has been spoken
LIVE_BLOCK = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="sound or video of any usual format, rate and length; a folder, with all below it; "
        "a pattern; - for standard input",
    )
    parser.add_argument(
        "--format",
        type=parse_formats,
        action="extend",
        default=[],
        metavar="NAMES",
        help=f"one or several of {','.join(FORMATS)} (default: what the name after --out ends in, else text); json "
        "is one object a file, jsonl one a segment",
    )
    parser.add_argument(
        "--out",
        metavar="FILE_OR_DIR",
        help="where to write: a file, which is replaced when the new transcript is complete, or a folder (an existing "
        "one, or a name that ends in / or has no suffix), which gets one file for each input and format; - is "
        "standard output (default)",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="take the audio in real time, as if it were spoken just now, and show words as they are found",
    )
    parser.add_argument(
        "--rate", type=int, metavar="HZ", help="standard input is raw samples: 16 bits, little endian, mono"
    )
    parser.add_argument(
        "--channel",
        type=_channel,
        metavar="CHANNEL",
        help="take one channel: a number from 1, or left, right, center (default: all that have speech)",
    )
    parser.add_argument(
        "--track",
        type=_track,
        metavar="N",
        help="take the sound track with this number, from 1 (default: the one that players take)",
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="how many files are recognised at once (default: 8)"
    )
    add_model_arguments(parser)
    add_archive_arguments(parser)


def _channel(text: str) -> str:
    from ..channels import parse_channel

    try:
        return parse_channel(text)
    except UserError as err:
        raise argparse.ArgumentTypeError(str(err)) from None


def _track(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 1000:
        raise argparse.ArgumentTypeError("a number from 1")
    return int(text)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--model, --delay, --numbers, --hotwords and --threads, as `listen` has them too."""
    parser.add_argument(
        "--model", metavar="FOLDER", help="a model folder (default: the one that is built in)"
    )
    parser.add_argument(
        "--delay",
        type=int,
        metavar="CHUNKS",
        help="label delay: fewer chunks come out sooner, more are surer (default: the model's own, which for "
        "recordings is larger than for live text)",
    )
    parser.add_argument(
        "--numbers",
        type=str.lower,
        choices=("words", "digits"),
        help="write all numbers alike: twenty-one, or 21 (English; default: as the model writes them)",
    )
    parser.add_argument(
        "--hotwords",
        metavar="FILE",
        help="names and terms to be recognised rightly, one a line, spelled as they are to be written",
    )
    parser.add_argument(
        "--hotwords-strength",
        type=float,
        default=DEFAULT_STRENGTH,
        metavar="X",
        help="how much these are preferred, from 0; with more, other words are taken for them (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="streams at once, each on a CPU thread (default: %(default)s)",
    )


def stream_options(args: argparse.Namespace) -> StreamOptions:
    """What add_model_arguments says of streams. Raises UserError."""
    from ..hotwords import read_hotwords
    from ..options import StreamOptions

    return StreamOptions(
        numbers=args.numbers,
        hotwords=read_hotwords(args.hotwords) if args.hotwords else (),
        hotwords_strength=args.hotwords_strength,
    )


def run(args: argparse.Namespace) -> int:
    from ..recognizer import Recognizer
    from ._inputs import find_inputs
    from ._outputs import Outputs
    from ._signals import Interrupt, exit_code

    if is_archive(args):
        return transcribe_manifest(args)
    if not args.files:
        raise UserError("name the files to transcribe, or a list of them: --manifest FILES.jsonl")
    if args.batch is not None and args.batch < 1:
        raise UserError("--batch must be at least 1")
    inputs = find_inputs(args.files, args.rate, channel=args.channel, track=args.track)
    options = stream_options(args)
    outputs = Outputs(inputs, args.format, args.out)
    recognizer = Recognizer.load(args.model, threads=args.threads, delay=args.delay)
    complete = False
    try:
        with Interrupt() as interrupt:
            work = _Live if args.live else _Work
            code = work(inputs, outputs, interrupt, options).run(recognizer, args.batch)
        complete = True
    finally:
        outputs.close(complete)
    if interrupt.seen:
        print("reallm: interrupted; what was recognised until then is kept", file=sys.stderr)
        return exit_code()
    return max(code, 2 * outputs.failed)


class _Work:
    """Recognises files as fast as it goes, with a progress bar."""

    def __init__(
        self, inputs: list[Input], outputs: Outputs, interrupt: Interrupt, options: StreamOptions
    ) -> None:
        from ._terminal import Progress

        self._inputs, self._outputs, self._interrupt = inputs, outputs, interrupt
        self._options = options
        self._sizes = [item.bytes for item in inputs]
        # how much of each file has been received, 0 to 1, and seconds of it
        self._shares = [0.0] * len(inputs)
        self._seconds = [0.0] * len(inputs)
        self._waiting: dict[int, Result] = {}
        self._next = 0
        self._done = 0
        self._lost: OutputLost | None = None
        known = not any(item.is_pipe for item in inputs)
        self._progress = Progress(self._label(), float(sum(self._sizes)) if known else 0.0)

    def run(self, recognizer: Recognizer, batch: int | None) -> int:
        """Recognise everything; returns the exit code."""
        from ..batch import BATCH, transcribe_files

        # a pipe must not hold up files, nor be held up by them
        alone = any(item.is_pipe for item in self._inputs)
        results = transcribe_files(
            recognizer,
            self._inputs,
            batch=1 if alone else batch or BATCH,
            open_file=self._open,
            on_event=self._on_event,
            on_audio=self._on_audio,
            options=self._options,
            block_seconds=LIVE_BLOCK if alone else None,
        )
        code = 0
        try:
            for result in results:
                self._done += 1
                self._shares[result.index] = 1.0
                self._waiting[result.index] = result
                code = max(code, self._write())
        finally:
            self._progress.close()
        # what waits for a file that was never begun
        return max(code, self._write(rest=True))

    def _write(self, rest: bool = False) -> int:
        """Write what can be written now; returns the exit code."""
        code = 0
        for index in sorted(self._waiting):
            if self._outputs.in_order and index != self._next and not rest:
                break
            self._next = index + 1
            code = max(code, self._finish(self._waiting.pop(index)))
        return code

    def _finish(self, result: Result) -> int:
        self._progress.close()
        if result.transcript is None:
            # the other files may be good
            sys.stdout.flush()
            print(f"reallm: error: {result.error}", file=sys.stderr)
            return 2
        self._outputs.write(self._inputs[result.index], result.transcript)
        return 0

    def _open(self, item: Input) -> object:
        if not item.is_pipe:
            return item.open()
        with self._interrupt.waiting():
            return _Interruptible(item.open(), self._interrupt)

    def _on_event(self, index: int, event: Event) -> None:
        from ..events import Final

        if isinstance(event, Final):
            self._progress.close()
            self._outputs.segment(self._inputs[index], event)

    def _on_audio(self, index: int, seconds: float, of: float) -> bool:
        self._seconds[index] = seconds
        self._shares[index] = min(1.0, seconds / of) if of > 0 else 0.0
        done = sum(share * size for share, size in zip(self._shares, self._sizes, strict=True))
        self._progress.update(done, sum(self._seconds), self._label())
        return not self._interrupt.stopping

    def _label(self) -> str:
        if len(self._inputs) == 1:
            return str(self._inputs[0].stem)
        return f"{self._done} of {len(self._inputs)} files"


class _Live(_Work):
    """One file after another in real time; words are shown as they come.

    They are shown on standard output, or on standard error if transcripts of a format of their own go to the former.
    """

    def run(self, recognizer: Recognizer, batch: int | None) -> int:
        from ..batch import transcribe_files
        from ._terminal import LiveText

        self._transcripts_are_shown = self._outputs.to_standard_output and self._outputs.formats == ["text"]
        aside = self._outputs.to_standard_output and not self._transcripts_are_shown
        self._text: LiveText | None = None
        if not aside or sys.stderr.isatty():
            self._text = LiveText(sys.stderr if aside else sys.stdout)
        self._started: dict[int, float] = {}
        results = transcribe_files(
            recognizer,
            self._inputs,
            batch=1,
            open_file=self._open,
            on_event=self._on_event,
            on_audio=self._pace,
            options=replace(self._options, delay=recognizer.delay),
            block_seconds=LIVE_BLOCK,
        )
        code = max((self._finish(result) for result in results), default=0)
        if self._lost is not None:
            # raised only now that everything is written
            raise self._lost
        return code

    def _on_event(self, index: int, event: Event) -> None:
        from ..events import Final

        # written first: the terminal may be gone
        if isinstance(event, Final) and not self._transcripts_are_shown:
            self._outputs.segment(self._inputs[index], event)
        self._show(lambda text: text.show(event))

    def _show(self, what: Callable[[LiveText], None]) -> None:
        """Without anybody to show words to, the files that were asked for are still written."""
        if self._text is None:
            return
        try:
            what(self._text)
        except OutputLost as err:
            self._text, self._lost = None, err
            if err.reader_left or self._outputs.to_standard_output:
                self._interrupt.stop()

    def _pace(self, index: int, seconds: float, of: float) -> bool:
        started = self._started.setdefault(index, time.monotonic())
        # a pipe has its own pace
        if not self._inputs[index].is_pipe:
            # a block is there when its last sample has been spoken
            while not self._interrupt.stopping and (wait := started + seconds - time.monotonic()) > 0:
                time.sleep(min(wait, 0.05))
        return not self._interrupt.stopping

    def _finish(self, result: Result) -> int:
        self._show(lambda text: text.newline())
        if result.transcript is None:
            return super()._finish(result)
        written = []
        if not self._transcripts_are_shown:
            written = self._outputs.write(self._inputs[result.index], result.transcript)
        _summary(result.transcript, written)
        return 0


class _Interruptible:
    """A pipe that nobody may write to for a while: Ctrl-C ends the waiting, and the sound ends there."""

    def __init__(self, pipe: DecodedAudio, interrupt: Interrupt) -> None:
        self._pipe, self._interrupt = pipe, interrupt
        self.rate, self.duration, self.warnings = pipe.rate, 0.0, pipe.warnings

    def blocks(self, seconds: float) -> Iterator[np.ndarray]:
        blocks = self._pipe.blocks(seconds)
        while True:
            try:
                with self._interrupt.waiting():
                    block = next(blocks, None)
            except KeyboardInterrupt:
                return
            if block is None:
                return
            yield block

    def close(self) -> None:
        self._pipe.close()


def _summary(transcript: Transcript, written: list[Path]) -> None:
    """What a live transcription was like, on standard error."""
    delays = [word.emitted - word.end for word in transcript.words]
    parts = [f"{transcript.duration:.1f} s of audio"]
    if delays:
        # emitted and end are both on the clock of the audio
        parts.append(f"words came {statistics.median(delays):.1f} s after they were spoken (median)")
    parts.append(f"computing took {transcript.rtf:.0%} of the time")
    print("; ".join(parts), file=sys.stderr)
    for path in written:
        print(f"written: {path}", file=sys.stderr)
