"""The rules of greedy decoding."""

from __future__ import annotations

import pytest

from speech_reallm.engine.rules import DecodingRules

BLANK = 3


@pytest.mark.parametrize(("most", "allowed"), [(1, [True, False, False]), (2, [True, True, False])])
def test_a_piece_is_written_so_many_times_after_one_embedding(most: int, allowed: list[bool]) -> None:
    """With two "ba-n-n-er" can be written at once; a loop is ended all the same."""
    rules = DecodingRules(BLANK, 16, most)
    found = [rules.choose(7, [5, *[7] * written]) == 7 for written in range(3)]
    assert found == allowed
    assert rules.choose(8, [7, 7, 7]) == 8


def test_blank_is_forced_after_so_many_pieces() -> None:
    rules = DecodingRules(BLANK, 2)
    assert rules.choose(9, [7]) == 9
    assert rules.choose(9, [7, 8]) == BLANK
