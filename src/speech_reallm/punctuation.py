"""Punctuation on words: which marks there are, and what a word is without them."""

from __future__ import annotations

import unicodedata

# these belong to the word before them
CLOSING = ".,?!;:…"
_AROUND = CLOSING + "-–—'\"‘’“”()[]"


def is_spoken(text: str) -> bool:
    """Is any of it a letter or a digit? Punctuation and signs alone are not spoken."""
    # of scripts whose vowels are marks on letters a piece may hold nothing else
    return any(unicodedata.category(c)[0] in "LMN" for c in text)


def bare(word: str) -> str:
    """The word without the punctuation around it, in lower case: "Mr." -> "mr". "" for punctuation alone."""
    return word.strip(_AROUND).lower()
