"""`reallm align`: when each word and word piece of a manifest is spoken, by a CTC teacher."""

from __future__ import annotations

import argparse
import sys

from ..errors import UserError

NAME = "align"
HELP = "find when each word piece of a manifest is spoken, with a CTC teacher"

# how a shell reports a program that Ctrl-C ended
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("teacher", help="training run of a CTC teacher (task: ctc)")
    parser.add_argument("manifest", help="plain manifest (.jsonl)")
    parser.add_argument("out", metavar="OUT.jsonl.gz", help="the aligned manifest")
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

    import torch

    from ..align.run import AlignOptions, align_manifest, load_teacher

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    teacher, tokenizer, made_by = load_teacher(args.teacher, device)
    options = AlignOptions(
        min_score=args.min_score,
        shift=args.shift_ms / 1000,
        batch_seconds=args.batch_seconds,
        device=device,
        peaks=args.peaks,
        overwrite=args.overwrite,
        skip_bad=args.skip_bad,
    )
    try:
        summary = align_manifest(teacher, tokenizer, args.manifest, args.out, options, made_by)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    print(f"{args.out}: {summary}")
    return 0
