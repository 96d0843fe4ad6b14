"""Hot words: names and terms that are to be recognised rightly, from lists, files and prompts, within bounds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from .errors import UserError
from .jsonl import text_lines

# nats for each character of a term that is written; docs/hotwords.md has what several do
DEFAULT_STRENGTH = 0.5
MAX_STRENGTH = 10.0

# so that a list of a stranger costs little time and memory; it helps less, too, the longer it is
MAX_TERMS = 1000
MAX_TERM_LENGTH = 100
MAX_CHARACTERS = 10_000

# what separates the terms of a list, and the sentences of a prompt; a point after a title ends none
_SEPARATORS = re.compile(
    r"[,;:\n\r\t\u2022|()\[\]{}\"\u201c\u201d]+|(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bProf)[.!?]+(?=\s|$)"
)
# a phrase with more words is a sentence, of which only names are taken
_TERM_WORDS = 4


def check_terms(terms: Iterable[str], share: float = 1.0) -> tuple[str, ...]:
    """The terms without those that are empty or there already, spaces evened out.

    share: of the bounds that may be used. Raises UserError for what is no list of text, for more than MAX_TERMS terms,
    a term of more than MAX_TERM_LENGTH characters, and more than MAX_CHARACTERS in all.
    """
    most_terms, most_characters = int(share * MAX_TERMS), int(share * MAX_CHARACTERS)
    if isinstance(terms, str) or not isinstance(terms, Iterable):
        raise UserError("hotwords must be a list of terms, each a string")
    found: dict[str, None] = {}
    characters = 0
    for term in terms:
        if not isinstance(term, str):
            raise UserError("hotwords must be a list of terms, each a string")
        if len(term) > 4 * MAX_TERM_LENGTH or len(term := _even(term)) > MAX_TERM_LENGTH:
            raise UserError(
                f"hotwords: {term[:30]!r}... is too long; a term has {MAX_TERM_LENGTH} characters at most"
            )
        if term and term not in found:
            found[term] = None
            characters += len(term)
        if len(found) > most_terms or characters > most_characters:
            raise UserError(
                f"hotwords: too many; {most_terms} terms with {most_characters} characters in all are the most"
            )
    return tuple(found)


def read_hotwords(path: str | Path, share: float = 1.0) -> tuple[str, ...]:
    """The terms of a text file, one a line; lines that begin with # are comments. Raises UserError as check_terms."""
    lines = [line for _, line in text_lines(Path(path)) if not line.lstrip("\ufeff \t").startswith("#")]
    try:
        return check_terms(lines, share)
    except UserError as err:
        raise UserError(f"{path}: {err}") from None


def within_bounds(terms: Iterable[str], share: float = 0.5) -> tuple[str, ...]:
    """The first of the terms, as many as are within a share of the bounds; those that are too long are left out."""
    found: dict[str, None] = {}
    characters = 0
    for term in map(_even, terms):
        if not term or term in found or len(term) > MAX_TERM_LENGTH:
            continue
        characters += len(term)
        if len(found) == int(share * MAX_TERMS) or characters > int(share * MAX_CHARACTERS):
            break
        found[term] = None
    return tuple(found)


def terms_of_prompt(prompt: str) -> tuple[str, ...]:
    """The hot words of a prompt as other recognisers take it: a list of terms, or sentences with names.

    Of a list, all terms; of a sentence, the words with a capital letter (but the first) or a digit. There are never too
    many: see `within_bounds`.
    """
    phrases = _SEPARATORS.split(prompt[: 2 * MAX_CHARACTERS])
    return within_bounds(term for phrase in phrases for term in _terms_of_phrase(phrase))


def _terms_of_phrase(phrase: str) -> list[str]:
    words = phrase.split()
    if len(words) <= _TERM_WORDS:
        return [phrase.strip()] if len(phrase.strip()) > 1 else []
    terms: list[str] = []
    name: list[str] = []
    for index, word in enumerate([*words, ""]):
        # the first word of a sentence has a capital in any case
        letters = word if index else word[1:]
        if letters != letters.lower() or re.search(r"\d", word):
            name.append(word)
            continue
        if name:
            terms.append(" ".join(name))
        name = []
    return terms


def _even(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).replace("\u2581", " ").replace("\ufeff", " ").split())
