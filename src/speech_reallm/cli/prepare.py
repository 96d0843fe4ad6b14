"""`reallm prepare`: a published corpus -> plain manifests."""

from __future__ import annotations

import argparse

from ..errors import UserError

NAME = "prepare"
HELP = "turn a published corpus into manifests"
EPILOG = """examples:
  reallm prepare librispeech LibriSpeech/ data/
  reallm prepare librispeech LibriSpeech/ data/ --subset dev-clean --subset train-clean-100
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", choices=["librispeech"], help="which corpus")
    parser.add_argument("path", help="its folder, as unpacked (train-clean-100/SPEAKER/CHAPTER/...)")
    parser.add_argument("out", help="folder for the manifests, one SUBSET.jsonl for each subset")
    parser.add_argument("--subset", action="append", metavar="NAME", help="only this subset; may be repeated")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..training.data.corpora.librispeech import find_subsets, write_manifest

    subsets = find_subsets(args.path)
    wanted = args.subset or list(subsets)
    for name in wanted:
        if name not in subsets:
            raise UserError(f"{args.path} has no subset {name}; it has {', '.join(subsets)}")
    for name in wanted:
        with tqdm(total=len(subsets[name]), desc=name, unit="chapter") as bar:
            count, hours = write_manifest(name, subsets[name], args.out, bar.update)
        print(f"{args.out}/{name}.jsonl: {count:,} utterances, {hours:.2f} hours")
    return 0
