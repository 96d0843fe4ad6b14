"""`reallm shard`: a manifest and its audio in a few large files, as Lhotse Shar."""

from __future__ import annotations

import argparse

from ..errors import UserError

NAME = "shard"
HELP = "write a manifest and its audio as a few large files, for training from object storage"
EPILOG = """examples:
  reallm shard aligned/train.jsonl.gz shards/train --shard-mb 500
  reallm shard aligned/train.jsonl.gz s3://bucket/train        needs s3fs
then in the training file:
  data: {train: [shards/train]}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", help="plain or aligned manifest (.jsonl, .jsonl.gz)")
    parser.add_argument("out", help="folder of the shards, or a URL; it must be empty")
    parser.add_argument(
        "--shard-mb",
        type=float,
        default=500.0,
        metavar="N",
        help="largest size of a shard in megabytes; a longer recording has one of its own (default: %(default)g)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out bad rows instead of stopping")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..training.data.shard_writer import write_shards

    if not 0.01 <= args.shard_mb <= 1e6:
        raise UserError("--shard-mb must be from 0.01 to 1000000")
    with tqdm(desc="shards", unit="utterance") as bar:

        def show(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        shards, utterances, size = write_shards(
            args.manifest, args.out, round(args.shard_mb * 1e6), skip_bad=args.skip_bad, on_progress=show
        )
    print(f"{args.out}: {utterances:,} utterances in {shards:,} shards of {size / 1e6:,.1f} MB in all")
    return 0
