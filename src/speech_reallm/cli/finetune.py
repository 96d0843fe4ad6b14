"""`reallm finetune`: adapt a model to one's own recordings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ._signals import exit_code

NAME = "finetune"
HELP = "adapt a model to a folder of recordings"
EPILOG = """examples:
  reallm finetune recordings/ my-model --general dev-clean.jsonl
  reallm finetune calls.jsonl my-model --minutes 20 --threads 2
  reallm transcribe talk.wav --model my-model

RECORDINGS is a folder, with the text of talk.wav in talk.txt beside it, or a manifest of JSON lines with `audio` and
`text`. Recordings without a text are transcribed by the model first; what it is sure of, it learns from. An hour of
speech is good, ten minutes are something. A tenth is held out and measured before and after, and so is the speech of
--general (a manifest with texts): weights that make more than 5 % more errors there are not taken. Stopped at any
time, the same command goes on where it was. Needs the extra train.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recordings", type=Path, metavar="RECORDINGS", help="a folder, or a manifest (.jsonl)"
    )
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="the model folder to write; OUT.finetune holds what is half done",
    )
    parser.add_argument(
        "--model", metavar="FOLDER", help="the model to begin with (default: the built-in one)"
    )
    parser.add_argument(
        "--general", type=Path, metavar="MANIFEST", help="other speech that is to stay as well recognised"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="of training (default: %(default)g)")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads of training (default: %(default)s)"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=5e-5, metavar="X", help="its peak (default: %(default)g)"
    )
    parser.add_argument(
        "--batch-seconds",
        type=float,
        default=40.0,
        metavar="S",
        help="audio of a step (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    from ..training.finetune import FineTune, Options

    options = Options(
        recordings=args.recordings,
        out=args.out,
        model=args.model,
        general=args.general,
        minutes=args.minutes,
        threads=args.threads,
        learning_rate=args.learning_rate,
        batch_seconds=args.batch_seconds,
    )

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        report = FineTune(options, say).run()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return exit_code()
    for name, before in report.before.items():
        print(f"{name}: {before} before, {report.after[name]} after")
    print(f"{args.out}: {report.share:.0%} of the way to the trained weights")
    return 0
