"""reallm tokenizer: word pieces from text."""

from __future__ import annotations

import argparse

NAME = "tokenizer"
HELP = "make a SentencePiece tokenizer from text files or manifests"
EPILOG = """examples:
  reallm tokenizer books.txt transcripts.txt --vocab 512 --out out/tokenizer.model
  reallm tokenizer train.jsonl --vocab 1000 --out tokenizer.model
  reallm tokenizer --moonshine moonshine-tiny-en --out out/tokenizer.model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("texts", nargs="*", help="text files, a sentence a line; or .jsonl manifests")
    parser.add_argument(
        "--vocab",
        type=int,
        help="number of pieces, the four special ones included (default: 512; of --moonshine: all)",
    )
    parser.add_argument(
        "--moonshine",
        metavar="FOLDER",
        help="the vocabulary of Moonshine's weights in FOLDER, cased and with punctuation, for a decoder that starts "
        "from them; with --vocab, the pieces that are most frequent in the texts",
    )
    parser.add_argument("--out", required=True, help="where the tokenizer.model goes")


def run(args: argparse.Namespace) -> int:
    from ..errors import UserError

    if args.moonshine and args.vocab is None:
        from ..training.tokenizers.from_moonshine import whole_tokenizer

        print(f"{whole_tokenizer(args.moonshine, args.out)} pieces")
    elif not args.texts:
        raise UserError(
            "name the texts that pieces are made from: reallm tokenizer TEXT --out tokenizer.model"
        )
    elif args.moonshine:
        from ..training.tokenizers.from_moonshine import make_tokenizer

        share = make_tokenizer(args.moonshine, args.texts, args.vocab, args.out)
        print(f"{share:.2%} of the pieces of the texts are kept whole")
    else:
        from ..training.tokenizers.from_text import train_tokenizer

        train_tokenizer(args.texts, args.vocab or 512, args.out)
    print(f"wrote {args.out}")
    return 0
