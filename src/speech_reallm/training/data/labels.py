"""The right pieces of an utterance and when each ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lhotse.cut import Cut

from ...errors import UserError
from ...tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """Pieces of one utterance and where each ends, in seconds."""

    pieces: list[int]
    ends: list[float]


def labels_of(cut: Cut, tokenizer: Tokenizer) -> Labels:
    """Pieces and end times from an aligned cut. Raises UserError for a cut without an alignment."""
    alignment = (cut.supervisions[0].alignment or {}).get("piece")
    if not alignment and cut.supervisions[0].text:
        raise UserError(f"{cut.id} has no alignment: make the manifest with `reallm align`")
    items = alignment or []
    return Labels(pieces=[tokenizer.id(i.symbol) for i in items], ends=[i.start + i.duration for i in items])


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
