"""`reallm align`: when each word and word piece of a manifest is spoken, by a CTC teacher or pocketsphinx."""

from __future__ import annotations

import argparse
import sys

from ..errors import UserError
from ._signals import exit_code

NAME = "align"
HELP = "find when each word piece of a manifest is spoken"
EPILOG = """examples:
  reallm align out/teacher talks.jsonl aligned/talks.jsonl.gz            with a CTC teacher of your own
  reallm align hmm talks.jsonl aligned/talks.jsonl.gz --tokenizer out/tokenizer.model   English, without a teacher
  reallm align hmm talks.jsonl aligned/talks.jsonl.gz --tokenizer out/tokenizer.model --cased   text as written
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "teacher", help="training run of a CTC teacher (task: ctc), or hmm: pocketsphinx, for English"
    )
    parser.add_argument("manifest", help="plain manifest (.jsonl)")
    parser.add_argument("out", metavar="OUT.jsonl.gz", help="the aligned manifest")
    parser.add_argument("--tokenizer", metavar="FILE", help="with hmm: the pieces of the model to be trained")
    parser.add_argument(
        "--cased", action="store_true", help="with hmm: pieces of the text with its case and punctuation"
    )
    parser.add_argument(
        "--min-score",
        type=float,
        metavar="X",
        help="drop utterances whose mean log probability of a frame is below this, as where the text does "
        "not match the audio (default: keep all; the scores are summed up at the end)",
    )
    parser.add_argument(
        "--shift-ms",
        type=float,
        default=0.0,
        metavar="MS",
        help="add this to all times (default: %(default)g)",
    )
    parser.add_argument(
        "--peaks",
        action="store_true",
        help="leave the times of the CTC's peaks as they are, not spread over the blanks between",
    )
    parser.add_argument(
        "--batch-seconds",
        type=float,
        default=120.0,
        metavar="S",
        help="audio in a batch (default: %(default)g)",
    )
    parser.add_argument("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out bad rows instead of stopping")
    parser.add_argument(
        "--overwrite", action="store_true", help="start anew even if OUT exists or is half done"
    )


def run(args: argparse.Namespace) -> int:
    if args.batch_seconds <= 0:
        raise UserError("--batch-seconds must be above 0")

    from ..tokenizer import Tokenizer
    from ..training.align.ctc_teacher import CTCTeacher
    from ..training.align.hmm_teacher import HMMTeacher
    from ..training.align.run import AlignOptions, align_manifest, default_device
    from ..training.align.teacher import AlignmentTeacher

    offset = args.shift_ms / 1000
    teacher: AlignmentTeacher
    if args.teacher == "hmm":
        if not args.tokenizer:
            raise UserError("align hmm needs --tokenizer: the pieces of the model to be trained")
        if args.min_score is not None:
            raise UserError("align hmm gives no scores: leave out --min-score")
        import pocketsphinx  # noqa: F401 - named here if it is missing, not once for each utterance

        teacher = HMMTeacher(Tokenizer(args.tokenizer), keep_case=args.cased, offset=offset)
    elif args.cased:
        raise UserError("--cased goes with align hmm")
    else:
        device = args.device or default_device()
        teacher = CTCTeacher.load(args.teacher, device, offset=offset, peaks=args.peaks)
    options = AlignOptions(
        min_score=args.min_score,
        batch_seconds=args.batch_seconds,
        overwrite=args.overwrite,
        skip_bad=args.skip_bad,
    )
    try:
        summary = align_manifest(teacher, args.manifest, args.out, options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return exit_code()
    print(f"{args.out}: {summary}")
    return 0
