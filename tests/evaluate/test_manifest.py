"""Bad rows are named; word times are read in every form."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from evaluate_fakes import write_manifest

from speech_reallm.errors import UserError
from speech_reallm.evaluate.latency import TimedWord
from speech_reallm.evaluate.manifest import read_manifest
from speech_reallm.evaluate.times import read_alignments

GOOD = {"id": "x", "text": "A", "audio": "a.wav", "duration": 1.0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object"),
        (json.dumps({**GOOD, "audio": None}), "line 2: `audio`"),
        (json.dumps({**GOOD, "text": 3}), "line 2: `text`"),
        (json.dumps({**GOOD, "duration": "1"}), "line 2: `duration`"),
        (json.dumps({**GOOD, "duration": -1}), "line 2: `duration`"),
        (json.dumps({**GOOD, "audio": "gone.wav"}), "line 2: audio file .*gone.wav does not exist"),
        (json.dumps({**GOOD, "words": 7}), "line 2: word times"),
        (json.dumps({**GOOD, "words": [{"word": "a"}]}), "line 2: word times"),
        (json.dumps({**GOOD, "id": "first"}), "line 2: the id 'first' is also on line 1"),
    ],
)
def test_bad_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({**GOOD, "id": "first"}) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message) as error:
        read_manifest(path)
    assert "\n" not in str(error.value)


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no rows"):
        read_manifest(tmp_path / "empty.jsonl")
    (tmp_path / "bad.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n')[:-12])
    with pytest.raises(UserError, match="damaged"):
        read_manifest(tmp_path / "bad.jsonl.gz")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe9"}')
    with pytest.raises(UserError, match="UTF-8"):
        read_manifest(tmp_path / "latin.jsonl")


def test_limit_is_spread_evenly(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, [{}] * 10, seconds=0.01)
    assert [r.id for r in read_manifest(path, 5)] == ["u0", "u2", "u4", "u6", "u8"]
    assert [r.id for r in read_manifest(path, 3)] == ["u0", "u3", "u6"]
    assert len(read_manifest(path, 99)) == 10
    with pytest.raises(UserError, match="at least 1"):
        read_manifest(path, 0)


def test_word_times_of_the_manifest(tmp_path: Path) -> None:
    words = [{"word": "a", "start": 0, "end": 0.5}]
    row = read_manifest(write_manifest(tmp_path, [{"words": words}]))[0]
    assert row.words == (TimedWord("a", 0.0, 0.5),)


@pytest.mark.parametrize(
    "items",
    [
        [["a", 0.25, 0.5, 0.9], ["b", 1.0, 0.25, None]],
        [["a", 0.25, 0.5], ["b", 1.0, 0.25]],
        [{"symbol": "a", "start": 0.25, "duration": 0.5}, {"symbol": "b", "start": 1.0, "duration": 0.25}],
        [{"word": "a", "start": 0.25, "end": 0.75}, {"word": "b", "start": 1.0, "end": 1.25}],
    ],
)
def test_aligned_manifest(tmp_path: Path, items: list) -> None:
    path = tmp_path / "cuts.jsonl.gz"
    cut = {"id": "c", "supervisions": [{"id": "s", "alignment": {"word": items}}]}
    bare = {"id": "d", "supervisions": [{"id": "d"}]}
    with gzip.open(path, "wt") as file:
        file.write(json.dumps(cut) + "\n" + json.dumps(bare) + "\n")
    expected = (TimedWord("a", 0.25, 0.75), TimedWord("b", 1.0, 1.25))
    assert read_alignments(path) == {"c": expected, "s": expected}


def test_aligned_manifest_errors(tmp_path: Path) -> None:
    path = tmp_path / "cuts.jsonl"
    path.write_text(json.dumps({"id": "d", "supervisions": [{}]}) + "\n")
    with pytest.raises(UserError, match="no word alignments"):
        read_alignments(path)
    path.write_text('{"id": "d", "audio": "x"}\n')
    with pytest.raises(UserError, match="line 1: not a lhotse cut"):
        read_alignments(path)
    path.write_text(
        json.dumps({"id": "d", "supervisions": [{"alignment": {"word": [["a", "x", 1]]}}]}) + "\n"
    )
    with pytest.raises(UserError, match="line 1: word times"):
        read_alignments(path)


def test_aligned_manifest_as_lhotse_writes_it(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    from lhotse.supervision import AlignmentItem

    supervision = lhotse.SupervisionSegment(
        id="u",
        recording_id="u",
        start=0.0,
        duration=2.0,
        text="a",
        alignment={"word": [AlignmentItem("a", 0.5, 0.25)]},
    )
    cut = lhotse.MonoCut(id="u", start=0.0, duration=2.0, channel=0, supervisions=[supervision])
    lhotse.CutSet([cut]).to_file(tmp_path / "cuts.jsonl.gz")
    assert read_alignments(tmp_path / "cuts.jsonl.gz") == {"u": (TimedWord("a", 0.5, 0.75),)}
