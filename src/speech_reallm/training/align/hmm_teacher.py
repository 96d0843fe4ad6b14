"""Pieces aligned by pocketsphinx (evaluate/hmm_aligner.py): English without training a model.

It says when words are spoken; the pieces of a word share its time by their letters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from lhotse.supervision import AlignmentItem

from ...audio import SAMPLE_RATE
from ...evaluate.hmm_aligner import align_words
from ...text import clean_cased, normalize_for_training
from ...tokenizer import SPACE, Tokenizer
from .teacher import AlignedText

# characters that take no time
_SILENT = str.maketrans("", "", SPACE + ".,?!;:-")


class HMMTeacher:
    """pocketsphinx as an AlignmentTeacher: English without training a model. Its alignments have no scores (0)."""

    scored = False

    def __init__(self, tokenizer: Tokenizer, *, keep_case: bool = False, offset: float = 0.0):
        """tokenizer: of the model to be trained. keep_case: pieces of the text with its case and punctuation.

        offset: seconds added to all times, to take out a known bias.
        """
        self.tokenizer, self.offset = tokenizer, offset
        self.clean: Callable[[str], str] = clean_cased if keep_case else normalize_for_training
        # part files of earlier versions have these keys
        self.identity = {
            "teacher": "hmm",
            "tokenizer": str(Path(tokenizer.path).resolve()),
            "cased": keep_case,
            "shift": offset,
            "peaks": False,
        }

    def align(self, audio: Sequence[np.ndarray], texts: Sequence[str]) -> list[AlignedText | None]:
        """What stands between two spaces lasts from the first to the last of its words ("five-and-twenty": three)."""
        return [self._align(samples, text) for samples, text in zip(audio, texts, strict=True)]

    def _align(self, samples: np.ndarray, text: str) -> AlignedText | None:
        tokens = text.split()
        spoken = [normalize_for_training(token).split() for token in tokens]
        words = align_words(samples, [word for group in spoken for word in group])
        if text and (words is None or not all(spoken)):
            return None
        times = iter(words or ())
        items: list[AlignmentItem] = []
        for token, group in zip(tokens, spoken, strict=True):
            spans = [next(times) for _ in group]
            start, end = spans[0][1] + self.offset, spans[-1][2] + self.offset
            items += _share(self.tokenizer.encode_pieces(token), start, end, len(samples) / SAMPLE_RATE)
        return AlignedText(pieces=items, score=0.0)


def _share(pieces: Sequence[str], start: float, end: float, seconds: float) -> list[AlignmentItem]:
    """The pieces of a word that lasts from start to end, within an utterance of `seconds`.

    Punctuation has no length: it ends where the letters before it do.
    """
    lengths = [len(p.translate(_SILENT)) for p in pieces]
    # what comes before all letters must not be written before the word is spoken
    lengths[0] = max(lengths[0], 1)
    letters = np.cumsum([0, *lengths])
    bounds = np.clip(start + (end - start) * letters / letters[-1], 0.0, seconds)
    return [
        AlignmentItem(piece, round(float(a), 4), round(float(b - a), 4), 0.0)
        for piece, a, b in zip(pieces, bounds[:-1], bounds[1:], strict=True)
    ]
