"""When a word of a recogniser that changes its mind counts as shown."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "contestants.py"
spec = importlib.util.spec_from_file_location("contestants", FILE)
assert spec is not None and spec.loader is not None
contestants = importlib.util.module_from_spec(spec)
sys.modules["contestants"] = contestants
spec.loader.exec_module(contestants)


@pytest.mark.parametrize(
    ("texts", "final", "since"),
    [
        (["a", "a b", "a b c"], "a b c", [0, 1, 2]),
        # taken back in between: from when it stays
        (["a", "x", "a b"], "a b", [2, 2]),
        # never in a partial text
        (["", "a"], "a b", [1, 2]),
        # a word put in before does not make the others new
        (["b c", "a b c"], "a b c", [1, 0, 0]),
        # half a word is not the word; case and punctuation may change
        (["Un", "understand it", "Understand it."], "Understand it.", [1, 1]),
        ([], "a", [0]),
        (["a"], "", []),
    ],
)
def test_stable_since(texts: list[str], final: str, since: list[int]) -> None:
    assert contestants.stable_since(texts, final.split()) == since


def test_partials_on_the_live_clock() -> None:
    said = iter(["", "hello", "hello wor", "hello world"])
    streamed = contestants.partials(
        np.zeros(3 * 3840 + 1, np.float32), lambda part: next(said), lambda: "hello world"
    )
    # feeds end at 0.24, 0.48, 0.72 s and one sample later
    assert [w.word for w in streamed.shown] == ["hello", "world"]
    assert [w.shown for w in streamed.shown] == pytest.approx([0.48, 0.72], abs=0.01)
    assert (streamed.text, streamed.late, len(streamed.compute)) == ("hello world", 0, 4)
