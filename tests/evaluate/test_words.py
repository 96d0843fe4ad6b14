"""Which words go wrong: counted by hand."""

from __future__ import annotations

from speech_reallm.evaluate.wer import align
from speech_reallm.evaluate.words import worst_words


def score(reference: str, hypothesis: str):
    return reference, hypothesis, align(reference.split(), hypothesis.split())


def test_words_are_counted_with_what_was_heard_for_them():
    rows = worst_words(
        [
            score("the cat sat on the mat", "the cat set on a mat"),
            score("the dog sat", "the dog"),
            score("sat", "set"),
            score("", "boo"),
        ]
    )
    assert rows == [
        {"word": "sat", "said": 3, "errors": 3, "heard": [["set", 2], ["", 1]]},
        {"word": "the", "said": 3, "errors": 1, "heard": [["a", 1]]},
    ]


def test_no_more_than_asked_for():
    assert len(worst_words([score("a b c", "x y z")], 2)) == 2
    assert worst_words([score("a b", "a b")]) == []
