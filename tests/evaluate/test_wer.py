"""Error counts against cases counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_reallm.errors import UserError
from speech_reallm.evaluate.wer import Counts, by_length, edit_alignment, make_normalizer, total


@pytest.mark.parametrize(
    ("reference", "hypothesis", "sub", "dele", "ins", "leading"),
    [
        ("a b c", "a b c", 0, 0, 0, 0),
        ("a b c", "a x c", 1, 0, 0, 0),
        ("a b c", "a c", 0, 1, 0, 0),
        ("a b c", "a b b c", 0, 0, 1, 0),
        ("a b c", "", 0, 3, 0, 0),
        ("", "x y", 0, 0, 2, 2),
        ("", "", 0, 0, 0, 0),
        # made up before the first word
        ("a b c", "you know a b c", 0, 0, 2, 2),
        # what comes behind the first word is an insertion like any other
        ("a b c", "a you know b c", 0, 0, 2, 0),
        ("a b c", "a b c you know", 0, 0, 2, 0),
        # a first word misheard is no word made up
        ("a b c", "x b c", 1, 0, 0, 0),
        # both: with as many words heard as said, nothing says which one was the misheard one
        ("a b c", "um x b c", 1, 0, 1, 1),
    ],
)
def test_counts(reference: str, hypothesis: str, sub: int, dele: int, ins: int, leading: int) -> None:
    found = edit_alignment(reference.split(), hypothesis.split())
    assert found.counts == Counts(len(reference.split()), sub, dele, ins)
    assert found.leading_insertions == leading


def test_correct_pairs() -> None:
    assert edit_alignment(["the", "cat", "sat", "down"], ["a", "the", "cat", "lay", "down"]).correct == (
        (0, 1),
        (1, 2),
        (3, 4),
    )


WORDS = st.lists(st.sampled_from("abcd"), max_size=8)


@given(WORDS, WORDS)
def test_alignment_is_consistent(reference: list[str], hypothesis: list[str]) -> None:
    found = edit_alignment(reference, hypothesis)
    counts = found.counts
    hits = len(found.correct)
    assert hits + counts.substitutions + counts.deletions == len(reference)
    assert hits + counts.substitutions + counts.insertions == len(hypothesis)
    assert all(reference[r] == hypothesis[h] for r, h in found.correct)
    assert list(found.correct) == sorted(found.correct)
    assert 0 <= found.leading_insertions <= counts.insertions
    assert counts.errors == _levenshtein(reference, hypothesis)


def _levenshtein(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(row[-1] + 1, previous[j] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def test_rate_is_percent_of_all_words() -> None:
    summed = total([Counts(3, 1, 0, 0), Counts(7, 0, 1, 1)])
    assert summed == Counts(10, 1, 1, 1)
    assert summed.wer == 30.0
    assert Counts(0, 0, 0, 2).wer is None


def test_by_length() -> None:
    rows = by_length([(1.0, Counts(2, 1)), (2.0, Counts(10, 1)), (4.9, Counts(10, 0)), (99.0, Counts(5, 5))])
    assert [(r["seconds"], r["utterances"], r["words"], r["wer"]) for r in rows] == [
        ("0-2", 1, 2, 50.0),
        ("2-5", 2, 20, 5.0),
        ("30+", 1, 5, 100.0),
    ]


def test_normalizers() -> None:
    libri, whisper = make_normalizer("librispeech"), make_normalizer("whisper")
    assert libri("Mr. Smith's COLOUR, isn't it?") == libri("mr smith's colour isn't it")
    # LibriSpeech spells titles out, a model may not
    titles = "Mr. and Mrs. Brown, Dr. Watson; Messrs. Smith: MR"
    assert libri(titles) == "mister and missus brown doctor watson messieurs smith mister"
    assert libri(libri(titles)) == libri(titles)
    assert whisper("Mr. Smith") == whisper("MISTER SMITH")
    assert whisper("twenty one colours") == whisper("21 colors")
    with pytest.raises(UserError, match="librispeech, whisper"):
        make_normalizer("none")
