"""Pieces aligned by pocketsphinx (hmm.py): English without training a teacher.

It knows when words are spoken; the pieces of a word share its time by their letters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lhotse.supervision import AlignmentItem

from ..tokenizer import SPACE, Tokenizer
from .hmm import align_words


def hmm_batch(
    tokenizer: Tokenizer, audio: Sequence[np.ndarray], texts: Sequence[str], shift: float = 0.0
) -> list[tuple[list[AlignmentItem], float] | None]:
    """As align_batch() does it, without scores (0). Texts are normalised; `shift` is in seconds."""
    results: list[tuple[list[AlignmentItem], float] | None] = []
    for samples, text in zip(audio, texts, strict=True):
        words = align_words(samples, text.split())
        seconds = len(samples) / 16000
        items: list[AlignmentItem] = []
        for word, start, end in words or ():
            items += _share(tokenizer.encode_pieces(word), start + shift, end + shift, seconds)
        results.append((items, 0.0) if words is not None or not text else None)
    return results


def _share(pieces: Sequence[str], start: float, end: float, seconds: float) -> list[AlignmentItem]:
    """The pieces of a word that lasts from start to end, within an utterance of `seconds`."""
    letters = np.cumsum([0, *(max(len(p.removeprefix(SPACE)), 1) for p in pieces)])
    bounds = np.clip(start + (end - start) * letters / letters[-1], 0.0, seconds)
    return [
        AlignmentItem(piece, round(float(a), 4), round(float(b - a), 4), 0.0)
        for piece, a, b in zip(pieces, bounds[:-1], bounds[1:], strict=True)
    ]
