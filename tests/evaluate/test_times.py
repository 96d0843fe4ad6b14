"""Which source of word times is used, and the cache of forced alignments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from speech_reallm.evaluate import times
from speech_reallm.evaluate.latency import TimedWord
from speech_reallm.evaluate.manifest import Row
from speech_reallm.evaluate.times import WordTimes

AUDIO = np.zeros(16000, np.float32)
WORDS = (TimedWord("a", 0.0, 0.5),)


def make_row(words: tuple[TimedWord, ...] | None = None) -> Row:
    return Row(id="u", audio=Path("u.wav"), text="A", duration=1.0, speaker=None, words=words)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The forced alignments asked for; each finds words of half a second each, and nothing for "none"."""
    hmm = pytest.importorskip("speech_reallm.evaluate.hmm_aligner")
    pytest.importorskip("pocketsphinx")
    asked: list[list[str]] = []

    def align_words(audio: np.ndarray, words: list[str]) -> list[tuple[str, float, float]] | None:
        asked.append(list(words))
        if words == ["none"]:
            return None
        return [(w, i / 2, i / 2 + 0.5) for i, w in enumerate(words)]

    monkeypatch.setattr(hmm, "align_words", align_words)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asked


def test_manifest_comes_first_then_alignments_then_hmm(calls: list[list[str]]) -> None:
    found = WordTimes({"u": (TimedWord("b", 0.0, 1.0),)})
    assert found.find(make_row(WORDS), AUDIO, "a") == WORDS
    assert found.source == "manifest"
    assert found.find(make_row(), AUDIO, "a") == (TimedWord("b", 0.0, 1.0),)
    assert found.source == "manifest+alignments"
    assert calls == []
    only_hmm = WordTimes()
    assert only_hmm.find(make_row(), AUDIO, "a") == WORDS
    assert (only_hmm.source, only_hmm.note) == ("hmm", None)


def test_alignments_are_remembered(calls: list[list[str]]) -> None:
    for _ in range(2):
        assert WordTimes().find(make_row(), AUDIO, "a b") == (*WORDS, TimedWord("b", 0.5, 1.0))
        assert WordTimes().find(make_row(), AUDIO, "none") is None
    assert calls == [["a", "b"], ["none"]]
    WordTimes().find(make_row(), AUDIO + 0.1, "a b")
    assert len(calls) == 3


def test_a_damaged_cache_is_made_anew(calls: list[list[str]]) -> None:
    WordTimes().find(make_row(), AUDIO, "a")
    for file in times.cache_folder().iterdir():
        file.write_text('[{"word": "a", "st')
    assert WordTimes().find(make_row(), AUDIO, "a") == WORDS
    assert len(calls) == 2


def test_no_source_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times.importlib.util, "find_spec", lambda name: None)
    found = WordTimes()
    assert found.find(make_row(), AUDIO, "a") is None
    assert found.source is None
    assert found.note is not None and "pocketsphinx is not installed" in found.note
