"""Spliced speech: every word comes from frames in which it was said, and its pieces end where they ended there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from lhotse import MonoCut, SupervisionSegment
from lhotse.supervision import AlignmentItem

from speech_reallm.errors import UserError
from speech_reallm.tokenizer import SPACE
from speech_reallm.training.data.frame_cache import Entry
from speech_reallm.training.data.sources.spliced import Splicer

PIECES = ["<unk>", "<s>", "</s>", "<blank>", SPACE + "red", SPACE + "b", "lue", SPACE + "green"]
FRAME = 0.024


class FakeTokenizer:
    def id(self, piece: str) -> int:
        return PIECES.index(piece) if piece in PIECES else 0

    def encode_pieces(self, text: str) -> list[str]:
        return {"lue": ["lue"], "red": [SPACE + "red"], "bb": [SPACE + "b", SPACE + "b"]}.get(
            text, ["unheard"]
        )


def entry(number: int, speaker: str, spoken: list[tuple[str, float]]) -> tuple[Entry, np.ndarray]:
    """50 frames, frame k of entry n holds n * 1000 + k; `spoken`: pieces and when their peaks begin."""
    pieces = [AlignmentItem(symbol, start, FRAME, -0.1) for symbol, start in spoken]
    supervision = SupervisionSegment(
        f"s{number}", "r", 0.0, 1.2, text="x", speaker=speaker, alignment={"piece": pieces}
    )
    cut = MonoCut(id=f"c{number}", start=0.0, duration=1.2, channel=0, supervisions=[supervision])
    frames = (np.arange(60)[:, None] + number * 1000).astype(np.float32)
    return Entry(
        cut=cut, repeat=1.0, offset=number * 60, num_frames=60, speech_frames=50, seconds=1.2
    ), frames


@pytest.fixture
def splicer(tmp_path):
    made = [
        entry(0, "ann", [(SPACE + "red", 0.24), (SPACE + "b", 0.6), ("lue", 0.72)]),
        entry(1, "bob", [(SPACE + "green", 0.36), (SPACE + "red", 0.84)]),
    ]
    frames = np.concatenate([f for _, f in made])
    cache = SimpleNamespace(
        entries=[e for e, _ in made], dim=1, read=lambda e: frames[e.offset : e.offset + e.num_frames]
    )
    text = tmp_path / "text.txt"
    text.write_text("Red, green; blue: red.\n" * 5)
    return Splicer(cache, FakeTokenizer(), [str(text)], FRAME)


def test_words_come_from_frames_in_which_they_were_said(splicer):
    assert splicer.units["blue"]["ann"][0].pieces == (5, 6)
    (red,) = splicer.units["red"]["bob"]
    assert red.entry == 1
    # the peak, frames 35 to 36, lies within the stretch, which reaches no word before
    assert red.start <= 35 < red.end
    assert red.start >= splicer.units["green"]["bob"][0].end
    assert red.start + red.ends[0] == 36


def test_an_utterance_says_consecutive_words_of_the_text(splicer):
    rng = np.random.default_rng(0)
    names = {(4,): "red", (7,): "green", (5, 6): "blue"}
    for _ in range(20):
        frames, pieces, ends = splicer.utterance(2.0, rng)
        assert ends == sorted(ends)
        assert 0 < ends[0] <= ends[-1] <= len(frames) * FRAME + 1e-6
        words, left = [], list(pieces)
        while left:
            size = 2 if left[0] == 5 else 1
            words.append(names[tuple(left[:size])])
            left = left[size:]
        assert " ".join(words) in "red green blue red " * 12
        # the frame in which a piece ends is one of a recording in which it was said
        for piece, end in zip(pieces, ends, strict=True):
            source = int(frames[round(end / FRAME) - 1, 0]) // 1000
            assert piece in {0: (4, 5, 6), 1: (7, 4)}[source]


def test_a_word_never_said_is_made_of_its_pieces_or_left_out(splicer):
    rng = np.random.default_rng(0)
    assert [s.pieces for s in splicer._find_word("bb", "ann", rng)] == [(5,), (5,)]
    assert splicer._find_word("purple", "ann", rng) == []


def test_no_text_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        Splicer(SimpleNamespace(entries=[]), FakeTokenizer(), [str(tmp_path / "none.txt")], FRAME)
