"""Which words go wrong: counted by hand."""

from __future__ import annotations

from speech_reallm.evaluate.wer import edit_alignment
from speech_reallm.evaluate.words import worst_words


def score(reference: str, hypothesis: str):
    return reference, hypothesis, edit_alignment(reference.split(), hypothesis.split())


def test_words_are_counted_with_what_was_recognised_for_them():
    rows = worst_words(
        [
            score("the cat sat on the mat", "the cat set on a mat"),
            score("the dog sat", "the dog"),
            score("sat", "set"),
            score("", "boo"),
        ]
    )
    assert rows == [
        {"word": "sat", "occurrences": 3, "errors": 3, "recognised_as": [["set", 2], ["", 1]]},
        {"word": "the", "occurrences": 3, "errors": 1, "recognised_as": [["a", 1]]},
    ]


def test_no_more_than_asked_for():
    assert len(worst_words([score("a b c", "x y z")], 2)) == 2
    assert worst_words([score("a b", "a b")]) == []
