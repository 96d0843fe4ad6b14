"""Capitals and punctuation are scored over the words that are right, and only where the reference has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_reallm.evaluate.writing import score_writing, written


def test_words_as_written():
    assert [(w.word, w.capital, w.mark) for w in written('"Mr. Fox," he said; well-being. OK?')] == [
        ("mister", True, "."),
        ("fox", True, ","),
        ("he", False, ""),
        ("said", False, ";"),
        ("well", False, ""),
        ("being", False, "."),
        ("ok", True, "?"),
    ]


def test_what_is_right_and_wrong():
    score = score_writing([("The fox ran. It was late, Tom.", "the Fox ran. It was, late. dog")])
    # the, fox, ran, it, was, late are right; Tom is not heard
    assert score["words"] == 6
    # The and It in the reference, Fox and It heard
    assert score["capitals_f1"] == pytest.approx(100 * 2 * 1 / (2 + 2))
    # "ran." and "late," in the reference; "ran.", "was," and "late." heard
    assert score["punctuation_f1"] == pytest.approx(100 * 2 * 1 / (2 + 3))


@pytest.mark.parametrize("reference", ["", "THE FOX RAN", "the fox ran.", "The Fox Ran"])
def test_references_without_case_or_punctuation_are_not_scored(reference):
    assert score_writing([(reference, "The fox ran.")]) is None


@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=4))
def test_any_text_is_scored_or_not(pairs):
    score = score_writing(pairs)
    for value in (score or {}).values():
        assert value is None or value >= 0
    same = score_writing([(reference, reference) for reference, _ in pairs])
    if same:
        assert {same["capitals_f1"], same["punctuation_f1"]} <= {None, 100.0}
