"""The right pieces of an utterance and when each ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem

from ...errors import UserError
from ...tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """Pieces of one utterance and where each ends, in seconds."""

    pieces: list[int]
    ends: list[float]


def labels_of(cut: Cut, tokenizer: Tokenizer) -> Labels:
    """Pieces and end times from an aligned cut. Raises UserError for a cut without an alignment.

    Where it was aligned with the pieces of another tokenizer, the words' times are spread over ours by their letters.
    """
    alignment = cut.supervisions[0].alignment or {}
    items = alignment.get("piece") or []
    if not items and cut.supervisions[0].text:
        raise UserError(f"{cut.id} has no alignment: make the manifest with `reallm align`")
    if any(tokenizer.piece(tokenizer.id(i.symbol)) != i.symbol for i in items) and alignment.get("word"):
        return _labels_of_words(alignment["word"], tokenizer)
    return Labels(pieces=[tokenizer.id(i.symbol) for i in items], ends=[i.start + i.duration for i in items])


def _labels_of_words(words: Sequence[AlignmentItem], tokenizer: Tokenizer) -> Labels:
    pieces: list[int] = []
    ends: list[float] = []
    for word in words:
        ids = tokenizer.encode(word.symbol)
        written = 0
        total = sum(len(tokenizer.text_bytes(i)) for i in ids)
        for i in ids:
            written += len(tokenizer.text_bytes(i))
            pieces.append(i)
            ends.append(word.start + word.duration * (written / total if total else 1.0))
    return Labels(pieces=pieces, ends=ends)


def join(parts: Sequence[tuple[Labels, float]]) -> Labels:
    """Labels of utterances, each with its duration in seconds, spoken one after another."""
    pieces: list[int] = []
    ends: list[float] = []
    offset = 0.0
    for labels, seconds in parts:
        pieces += labels.pieces
        ends += [offset + min(e, seconds) for e in labels.ends]
        offset += seconds
    return Labels(pieces=pieces, ends=ends)
