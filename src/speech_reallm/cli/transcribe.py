"""`reallm transcribe`: sound and video to text, subtitles or word times; live, if wanted."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ._outputs import FORMATS, parse_formats

if TYPE_CHECKING:
    import numpy as np

    from ..batch import Result
    from ..events import Event, Transcript
    from ..pipes import Pipe
    from ..recognizer import Recognizer
    from ._inputs import Input
    from ._outputs import Outputs
    from ._terminal import Interrupt

NAME = "transcribe"
HELP = "write down what is said in sound or video files"
EPILOG = """examples:
  reallm transcribe talk.mp3
  reallm transcribe film.mp4 --format srt,vtt --out subtitles/
  reallm transcribe recordings/ --format json,text --out transcripts/
  reallm transcribe *.wav --format jsonl --out results.jsonl
  reallm transcribe talk.mp3 --live --delay 0
  arecord -q -f S16_LE -r 16000 | reallm transcribe - --live
  ffmpeg -v error -i rtmp://example.org/talk -f s16le -ar 16000 -ac 1 - | reallm transcribe - --rate 16000

Ctrl-C ends it; what was heard until then is written. With several files it goes on with the next
one if one cannot be read, and exits with 2 in the end.
"""
# a step of a live stream, seconds; short, for a block comes when its last sample has been spoken
LIVE_BLOCK = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="sound or video of any usual format, rate and length; a folder, with all below it; "
        "a pattern; - for standard input",
    )
    parser.add_argument(
        "--format",
        type=parse_formats,
        default=["text"],
        metavar="NAMES",
        help=f"one or several of {','.join(FORMATS)} (default: text); json is one object a file, jsonl one a segment",
    )
    parser.add_argument(
        "--out",
        metavar="FILE_OR_DIR",
        help="where to write; a folder (an existing one, or a name that ends in /) gets one file for each "
        "input and format (default: standard output; with --live a new file in the current folder)",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="pretend the audio is spoken just now: it comes in real time, words are shown as they are found",
    )
    parser.add_argument(
        "--rate", type=int, metavar="HZ", help="standard input is raw samples: 16 bits, little endian, mono"
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="how many files are recognised at once (default: 8)"
    )
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--model, --delay and --threads, as `listen` has them too."""
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
    from ._inputs import find_inputs
    from ._outputs import Outputs
    from ._terminal import Interrupt

    if args.batch is not None and args.batch < 1:
        raise UserError("--batch must be at least 1")
    inputs = find_inputs(args.files, args.rate)
    outputs = Outputs(inputs, args.format, args.out, fresh=args.live)
    recognizer = Recognizer.load(args.model, threads=args.threads, delay=args.delay)
    with Interrupt() as interrupt:
        work = _Live if args.live else _Work
        code = work(inputs, outputs, interrupt).run(recognizer, args.batch)
    if interrupt.seen:
        print("reallm: interrupted; what was heard until then is kept", file=sys.stderr)
        return 130
    return code


class _Work:
    """Recognises files as fast as it goes, with a progress bar."""

    def __init__(self, inputs: list[Input], outputs: Outputs, interrupt: Interrupt) -> None:
        from ._terminal import Progress

        self._inputs, self._outputs, self._interrupt = inputs, outputs, interrupt
        self._sizes = [item.bytes for item in inputs]
        # how much of each file has been heard, 0 to 1, and seconds of it
        self._shares = [0.0] * len(inputs)
        self._seconds = [0.0] * len(inputs)
        self._waiting: dict[int, Result] = {}
        self._next = 0
        self._done = 0
        known = not any(item.is_stdin for item in inputs)
        self._progress = Progress(self._label(), float(sum(self._sizes)) if known else 0.0)

    def run(self, recognizer: Recognizer, batch: int | None) -> int:
        """Recognise everything; returns the exit code."""
        from ..batch import BATCH, transcribe_files

        # a pipe must not hold up files, nor be held up by them
        alone = any(item.is_stdin for item in self._inputs)
        results = transcribe_files(
            recognizer,
            self._inputs,
            batch=1 if alone else batch or BATCH,
            open_file=self._open,
            on_event=self._on_event,
            on_audio=self._on_audio,
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
        if not item.is_stdin:
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
        return not self._interrupt.seen

    def _label(self) -> str:
        if len(self._inputs) == 1:
            return str(self._inputs[0].stem)
        return f"{self._done} of {len(self._inputs)} files"


class _Live(_Work):
    """One file after another in real time; words are shown as they come."""

    def run(self, recognizer: Recognizer, batch: int | None) -> int:
        from ..batch import transcribe_files
        from ._terminal import LiveText

        self._text = LiveText()
        self._started: dict[int, float] = {}
        results = transcribe_files(
            recognizer,
            self._inputs,
            batch=1,
            open_file=self._open,
            on_event=lambda _, event: self._text.show(event),
            on_audio=self._pace,
            block_seconds=LIVE_BLOCK,
        )
        return max((self._finish(result) for result in results), default=0)

    def _pace(self, index: int, seconds: float, of: float) -> bool:
        started = self._started.setdefault(index, time.monotonic())
        # a pipe has its own pace
        if not self._inputs[index].is_stdin:
            # a block is there when its last sample has been spoken
            while not self._interrupt.seen and (wait := started + seconds - time.monotonic()) > 0:
                time.sleep(min(wait, 0.05))
        return not self._interrupt.seen

    def _finish(self, result: Result) -> int:
        self._text.newline()
        if result.transcript is None:
            return super()._finish(result)
        _summary(result.transcript, self._outputs.write(self._inputs[result.index], result.transcript))
        return 0


class _Interruptible:
    """A pipe that nobody may write to for a while: Ctrl-C ends the waiting, and the sound ends there."""

    def __init__(self, pipe: Pipe, interrupt: Interrupt) -> None:
        self._pipe, self._interrupt = pipe, interrupt
        self.rate, self.duration = pipe.rate, 0.0

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
    delays = [word.emitted - word.end for word in transcript.words]
    lines = [f"audio            {transcript.duration:.2f} s", f"real-time factor {transcript.rtf:.3f}"]
    if delays:
        lines.append(
            f"emission delay   {statistics.median(delays):.2f} s "
            "(median; by the model's own estimate of when words end)"
        )
    lines += [f"transcript       {path}" for path in written]
    print("\n".join(lines), file=sys.stderr)
