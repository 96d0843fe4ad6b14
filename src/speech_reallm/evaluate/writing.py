"""Capital letters and punctuation, scored apart from the words: F1 over the words that were recognised right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..punctuation import CLOSING
from .wer import edit_alignment, make_normalizer


@dataclass(frozen=True, slots=True)
class Written:
    """A word as written: normalised, whether it begins with a capital, and the mark behind it ("" for none)."""

    word: str
    capital: bool
    mark: str


@dataclass(frozen=True, slots=True)
class Hits:
    """How often something was written in the reference, in the hypothesis, and in both; adds up with `+`."""

    reference: int = 0
    hypothesis: int = 0
    both: int = 0

    @property
    def f1(self) -> float | None:
        """In percent; None where the reference has none."""
        return 200.0 * self.both / (self.reference + self.hypothesis) if self.reference else None

    def __add__(self, other: Hits) -> Hits:
        return Hits(
            self.reference + other.reference, self.hypothesis + other.hypothesis, self.both + other.both
        )


def written(text: str) -> list[Written]:
    """The words of a text. One that normalises to several has its capital on the first and its mark on the last."""
    normalize = make_normalizer("librispeech")
    words: list[Written] = []
    for token in text.split():
        parts = normalize(token).split()
        capital = next((c.isupper() for c in token if c.isalpha()), False)
        mark = token.rstrip("\"'”’)]")[-1:]
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            words.append(Written(part, capital and i == 0, mark if last and mark in CLOSING else ""))
    return words


def score_writing(pairs: Iterable[tuple[str, str]]) -> dict[str, Any] | None:
    """F1 in percent of `capitals` and `punctuation`, from (reference, hypothesis) texts as written.

    Over the `words` that are in both; a mark counts if it is the same one. None where the references, together, have no
    case or no punctuation at all.
    """
    pairs = list(pairs)
    references = "".join(reference for reference, _ in pairs)
    if references in (references.upper(), references.lower()) or not any(
        mark in references for mark in CLOSING
    ):
        return None
    capitals, marks, words = Hits(), Hits(), 0
    for reference, hypothesis in pairs:
        ours, theirs = written(reference), written(hypothesis)
        alignment = edit_alignment([w.word for w in ours], [w.word for w in theirs])
        for i, j in alignment.correct:
            a, b = ours[i], theirs[j]
            words += 1
            capitals += Hits(a.capital, b.capital, a.capital and b.capital)
            marks += Hits(bool(a.mark), bool(b.mark), bool(a.mark) and a.mark == b.mark)
    return {"capitals_f1": capitals.f1, "punctuation_f1": marks.f1, "words": words}
