"""Making a tokenizer: normalised text to SentencePiece."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from ...errors import UserError
from ...text import normalize_for_training
from .texts import lines_of


def sentences(paths: list[str]) -> Iterator[str]:
    """Normalised sentences of text files (a sentence a line) and of the `text` fields of .jsonl manifests."""
    return filter(None, map(normalize_for_training, lines_of(paths)))


def train_tokenizer(paths: list[str], vocab: int, out: str | Path, threads: int = 2) -> None:
    """A unigram SentencePiece model (Kudo, ACL 2018) with `<blank>` as id 3. Raises UserError."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=sentences(paths),
            model_writer=model,
            vocab_size=vocab,
            model_type="unigram",
            control_symbols=["<blank>"],
            character_coverage=1.0,
            normalization_rule_name="identity",
            input_sentence_size=60_000,
            shuffle_input_sentence=True,
            num_threads=threads,
            minloglevel=2,
        )
    except RuntimeError as err:
        reason = str(err).strip().splitlines()[-1] if str(err).strip() else "no text"
        raise UserError(f"cannot make {vocab} pieces from this text: {reason[:200]}") from None
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_bytes(model.getvalue())
