"""`reallm transcribe --manifest`: a share of an archive, with progress, failures that stop nothing, and resuming."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from ..archive import Tally
    from ._signals import Interrupt

# seconds between two lines of progress where there is no terminal, as in the log of a job
_LINE = 60.0


def add_archive_arguments(parser: argparse.ArgumentParser) -> None:
    """--manifest, --shard, --jobs and --ray."""
    group = parser.add_argument_group(
        "archives",
        "A run that was killed is started again and goes on: what is in the folder of --out is not done again.",
    )
    group.add_argument(
        "--manifest",
        metavar="FILES.jsonl",
        help="recordings as JSON lines with `audio` (a path relative to this file, or a URL) and perhaps `id`, which "
        "names the transcript, and `duration`; --out is a folder or a URL, and --format is json if not given",
    )
    group.add_argument(
        "--shard",
        metavar="i/N",
        help="take one of N shares of the manifest: 0/N to N-1/N (default: all of it)",
    )
    group.add_argument(
        "--jobs", type=int, metavar="N", help="processes, each on one core (default: one for each core)"
    )
    group.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="on a Ray cluster, as HOST:PORT or auto; without ADDRESS on one that is started here for this run",
    )


def is_archive(args: argparse.Namespace) -> bool:
    """Does the command line name a manifest? Raises UserError for options that need one."""
    if args.manifest is not None:
        return True
    for name in ("shard", "jobs", "ray"):
        if getattr(args, name) is not None:
            raise UserError(f"--{name} is for archives: name the recordings with --manifest FILES.jsonl")
    return False


def transcribe_manifest(args: argparse.Namespace) -> int:
    """Transcribe a share of a manifest; returns the exit code: 2 if a recording failed."""
    from ..archive import Archive, Settings, parse_shard, transcribe_archive
    from ..hotwords import read_hotwords
    from ._machine import usable_cores
    from ._signals import Interrupt, exit_code

    _check(args)
    shard = parse_shard(args.shard or "0/1")
    settings = Settings(
        out=args.out,
        formats=tuple(dict.fromkeys(args.format)) or ("json",),
        model=args.model,
        delay=args.delay,
        channel=args.channel,
        track=args.track,
        numbers=args.numbers,
        hotwords=read_hotwords(args.hotwords) if args.hotwords else (),
        hotwords_strength=args.hotwords_strength,
    )
    archive = Archive(args.manifest, settings, shard)
    with Interrupt() as interrupt:
        display = _Display(archive.tally, interrupt)
        try:
            if args.ray is None:
                transcribe_archive(
                    archive, args.jobs or usable_cores(), on_progress=display.update, on_message=display.say
                )
            else:
                from ..ray_jobs import transcribe_with_ray

                transcribe_with_ray(
                    archive, args.ray or None, args.jobs, on_progress=display.update, on_message=display.say
                )
        finally:
            display.close()
    tally = archive.tally
    text = f"{tally.total} recordings: {tally.present} were there, {tally.done - tally.failed} are done now"
    if tally.failed:
        text += f", {tally.failed} failed"
    if interrupt.seen:
        left = tally.total - tally.present - tally.done
        print(f"reallm: interrupted; {text}, {left} are left; start it again to go on", file=sys.stderr)
        return exit_code()
    print(f"{text}; {archive.failures_path} says what failed" if tally.failed else text, file=sys.stderr)
    return 2 if tally.failed else 0


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for options that do not go together."""
    if args.files:
        raise UserError("name files or --manifest, not both")
    if args.out is None or args.out == "-":
        raise UserError("--manifest needs the folder of the transcripts: --out DIR")
    if args.jobs is not None and not 1 <= args.jobs <= 1024:
        raise UserError("--jobs must be 1 to 1024")
    for name, off in (("live", False), ("rate", None), ("batch", None), ("threads", 1)):
        if getattr(args, name) != off:
            hint = "; --jobs says how many processes there are" if name in ("batch", "threads") else ""
            raise UserError(f"--{name} does not go with --manifest{hint}")


class _Display:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self, tally: Tally, interrupt: Interrupt) -> None:
        from ._terminal import Progress

        self._interrupt = interrupt
        self._bar = Progress("", tally.work_total)
        self._lines = not sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def update(self, tally: Tally, work: float, seconds: float) -> bool:
        """Show how far it is; False if it is to end."""
        label = f"{tally.present + tally.done} of {tally.total} recordings"
        if tally.failed:
            label += f", {tally.failed} failed"
        now = time.monotonic()
        if not self._lines:
            self._bar.update(work, seconds, label)
        elif now - self._shown >= _LINE:
            self._shown = now
            print(
                f"{label}, {progress_text(work, tally.work_total, seconds, now - self._started)}",
                file=sys.stderr,
            )
        return not self._interrupt.stopping

    def say(self, text: str) -> None:
        self._bar.close()
        print(f"reallm: {text}", file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


def progress_text(work: float, total: float, seconds: float, elapsed: float) -> str:
    """`10:00 of audio at 20.0x, 1:06:40 left`: seconds of audio in `elapsed` seconds, `work` of `total` done."""
    from ._terminal import clock

    text = f"{clock(seconds)} of audio at {seconds / elapsed:.1f}x"
    return f"{text}, {clock(elapsed * (total - work) / work)} left" if 0 < work <= total else text
