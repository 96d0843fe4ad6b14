"""Pieces aligned by pocketsphinx (hmm_aligner.py): English without training a teacher.

It knows when words are spoken; the pieces of a word share its time by their letters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lhotse.supervision import AlignmentItem

from ...evaluate.hmm_aligner import align_words
from ...text import normalize_for_training
from ...tokenizer import SPACE, Tokenizer

# characters that take no time
_SILENT = str.maketrans("", "", SPACE + ".,?!;:-")


def hmm_batch(
    tokenizer: Tokenizer, audio: Sequence[np.ndarray], texts: Sequence[str], shift: float = 0.0
) -> list[tuple[list[AlignmentItem], float] | None]:
    """As align_batch() does it, without scores (0). `shift` is in seconds.

    Texts are normalised or, with case and punctuation, cleaned (text.clean_cased()). What stands between two
    spaces lasts from the first to the last of its spoken words ("five-and-twenty": three).
    """
    results: list[tuple[list[AlignmentItem], float] | None] = []
    for samples, text in zip(audio, texts, strict=True):
        tokens = text.split()
        spoken = [normalize_for_training(token).split() for token in tokens]
        words = align_words(samples, [word for group in spoken for word in group])
        if text and (words is None or not all(spoken)):
            results.append(None)
            continue
        times = iter(words or ())
        items: list[AlignmentItem] = []
        for token, group in zip(tokens, spoken, strict=True):
            spans = [next(times) for _ in group]
            start, end = spans[0][1] + shift, spans[-1][2] + shift
            items += _share(tokenizer.encode_pieces(token), start, end, len(samples) / 16000)
        results.append((items, 0.0))
    return results


def _share(pieces: Sequence[str], start: float, end: float, seconds: float) -> list[AlignmentItem]:
    """The pieces of a word that lasts from start to end, within an utterance of `seconds`.

    Punctuation has no length: it ends where the letters before it do.
    """
    lengths = [len(p.translate(_SILENT)) for p in pieces]
    # what comes before all letters must not be written before the word is heard
    lengths[0] = max(lengths[0], 1)
    letters = np.cumsum([0, *lengths])
    bounds = np.clip(start + (end - start) * letters / letters[-1], 0.0, seconds)
    return [
        AlignmentItem(piece, round(float(a), 4), round(float(b - a), 4), 0.0)
        for piece, a, b in zip(pieces, bounds[:-1], bounds[1:], strict=True)
    ]
