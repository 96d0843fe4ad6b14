"""Word error rates: substitutions, deletions and insertions, by utterance, in sum and by length.

All rates are in percent of the reference words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..extras import install_command

Normalizer = Callable[[str], str]

NORMALIZERS = ("librispeech", "whisper")

# upper ends, in seconds of audio, of the classes that rates are also reported for
LENGTHS = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many words there were and how many errors; adds up with `+`."""

    words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float | None:
        """Errors in percent of the reference words; None when there are no reference words."""
        return 100.0 * self.errors / self.words if self.words else None

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.words + other.words,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True, slots=True)
class EditAlignment:
    """The alignment of a hypothesis to its reference that has the fewest errors.

    `correct` holds the (reference index, hypothesis index) of each word that is right. `leading_insertions`
    counts the hypothesis words put before the first reference word that was recognised, rightly or not: words
    made up before anybody spoke.
    """

    counts: Counts
    correct: tuple[tuple[int, int], ...]
    leading_insertions: int


def make_normalizer(name: str) -> Normalizer:
    """The function that prepares texts for comparison.

    `librispeech` makes texts comparable with LibriSpeech's: case and punctuation do not count, and the titles
    that its transcripts spell out are spelled out ("Mr.": mister, Mrs., Dr., Messrs.). `whisper` is the English
    normaliser of OpenAI's Whisper (nor do spelling, numbers and contractions count).
    Raises UserError for another name or when the package for `whisper` is not installed.
    """
    if name == "librispeech":
        from ..text import normalize, spell_titles

        return lambda text: spell_titles(normalize(text))
    if name == "whisper":
        try:
            from whisper_normalizer.english import EnglishTextNormalizer
        except ImportError:
            raise UserError(
                f"--normalizer whisper needs a package: {install_command('whisper_normalizer')}"
            ) from None
        normalizer: Callable[[str], str] = EnglishTextNormalizer()
        return normalizer
    raise UserError(f"unknown normalizer {name!r}; known: {', '.join(NORMALIZERS)}")


def edit_alignment(reference: Sequence[str], hypothesis: Sequence[str]) -> EditAlignment:
    """Align two word sequences (already normalised). Either may be empty. Raises UserError without jiwer."""
    try:
        import jiwer
    except ImportError:
        raise UserError(f"evaluation needs a package: {install_command('jiwer')}") from None
    out = jiwer.process_words([" ".join(reference)], [" ".join(hypothesis)])
    correct: list[tuple[int, int]] = []
    leading, begun = 0, False
    for chunk in out.alignments[0]:
        if chunk.type == "equal":
            pairs = zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx),
                range(chunk.hyp_start_idx, chunk.hyp_end_idx),
                strict=True,
            )
            correct.extend(pairs)
        if chunk.type in ("equal", "substitute"):
            begun = True
        elif chunk.type == "insert" and not begun:
            leading += chunk.hyp_end_idx - chunk.hyp_start_idx
    counts = Counts(len(reference), out.substitutions, out.deletions, out.insertions)
    return EditAlignment(counts, tuple(correct), leading)


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of counts."""
    return sum(counts, Counts())


def by_length(items: Iterable[tuple[float, Counts]]) -> list[dict[str, Any]]:
    """Error rates by length, from (duration in seconds, counts) pairs; empty classes are left out.

    Each class is a dict of `seconds` ("5-10"), `utterances`, `words` and `wer` (percent, or None).
    """
    edges = (0.0, *LENGTHS, float("inf"))
    classes: list[list[Counts]] = [[] for _ in edges[1:]]
    for duration, counts in items:
        index = next(i for i, end in enumerate(edges[1:]) if duration < end)
        classes[index].append(counts)
    rows: list[dict[str, Any]] = []
    for low, high, members in zip(edges, edges[1:], classes, strict=False):
        if members:
            name = f"{low:g}-{high:g}" if high != float("inf") else f"{low:g}+"
            summed = total(members)
            rows.append(
                {"seconds": name, "utterances": len(members), "words": summed.words, "wer": summed.wer}
            )
    return rows
