"""The trie of hot words: what it spells, how the bonus grows, what it never does."""

from __future__ import annotations

import numpy as np
import pytest
from fake_model import BLANK, make_tokenizer

from speech_reallm.engine.hotwords import NO_MATCH, HotWords
from speech_reallm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(make_tokenizer())
    return Tokenizer(path)


def answer(tokenizer: Tokenizer, **log_probs: float) -> np.ndarray:
    """Log-probabilities of a step: -90 but for the pieces that are named (`_` for a space), and for BLANK."""
    values = np.full(len(tokenizer), -90.0, np.float32)
    for piece, value in log_probs.items():
        values[BLANK if piece == "blank" else tokenizer.id(piece.replace("_", "\u2581"))] = value
    return values


def spelled(hotwords: HotWords, tokenizer: Tokenizer, pieces: list[str]) -> bool:
    """Do the pieces lead along a term?"""
    matches = NO_MATCH
    for piece in pieces:
        matches = hotwords.advance(matches, tokenizer.id(piece))
        if len(matches) == 1:
            return False
    return True


def test_all_ways_to_spell_a_term_are_in_the_trie(tokenizer: Tokenizer) -> None:
    hotwords = HotWords(tokenizer, ["the sea"], 1.0, BLANK)
    assert spelled(hotwords, tokenizer, ["\u2581the", "\u2581s", "ea"])
    assert spelled(hotwords, tokenizer, ["\u2581", "t", "h", "e", "\u2581", "s", "e", "a"])
    assert not spelled(hotwords, tokenizer, ["\u2581the", "s"])
    # an end that no pieces lead to is no way
    assert not HotWords(tokenizer, ["the s\u00f8a"], 1.0, BLANK)


def test_the_bonus_grows_with_what_has_been_written(tokenizer: Tokenizer) -> None:
    hotwords = HotWords(tokenizer, ["weather"], 0.5, BLANK)
    other, term = tokenizer.id("o"), tokenizer.id("e")
    matches = hotwords.advance(NO_MATCH, tokenizer.id("\u2581w"))
    close, far = answer(tokenizer, o=-0.1, e=-1.0), answer(tokenizer, o=-0.1, e=-2.0)
    # two characters and a third: a bonus of 1.5 for the term, none for a piece that leaves it
    assert hotwords.best(close, matches, ()) == term
    assert hotwords.best(far, matches, ()) == other
    for piece in ("e", "a", "t", "h"):
        matches = hotwords.advance(matches, tokenizer.id(piece))
    assert hotwords.best(far, matches, ()) == term
    # what has been left is no longer gone on with
    assert hotwords.best(close, hotwords.advance(matches, other), ()) == other


def test_a_term_begins_at_a_word_and_within_another_term(tokenizer: Tokenizer) -> None:
    hotwords = HotWords(tokenizer, ["the the weather", "the sea"], 0.5, BLANK)
    the = tokenizer.id("\u2581the")
    matches = hotwords.advance(hotwords.advance(NO_MATCH, the), the)
    # in the one as the second word, in the other as the first
    assert len(matches) == 3
    sea = hotwords.advance(matches, tokenizer.id("\u2581s"))
    assert len(sea) == 2


def test_blank_and_pieces_of_the_chunk_are_left_alone(tokenizer: Tokenizer) -> None:
    hotwords = HotWords(tokenizer, ["weather"], 5.0, BLANK)
    matches = hotwords.advance(NO_MATCH, tokenizer.id("\u2581w"))
    assert hotwords.best(answer(tokenizer, blank=-0.6, e=-0.8), matches, ()) == BLANK
    values = answer(tokenizer, o=-0.1, e=-1.0)
    assert hotwords.best(values, matches, [tokenizer.id("e")]) == tokenizer.id("o")


def test_small_letters_may_be_capitals_at_the_beginning(tokenizer: Tokenizer) -> None:
    upper = {"\u2581We": 40}
    tokenizer.__dict__["ids_by_text"] = tokenizer.ids_by_text | upper
    try:
        hotwords, exact = (HotWords(tokenizer, [term], 1.0, BLANK) for term in ("weather", "WEather"))
        assert len(hotwords.advance(NO_MATCH, 40)) == 2
        assert len(exact.advance(NO_MATCH, 40)) == 1
    finally:
        del tokenizer.__dict__["ids_by_text"]
