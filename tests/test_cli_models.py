"""`reallm models`: what is told of a model is what its folder says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_model import write_model

from speech_reallm.cli import main as cli
from speech_reallm.cli.models import figures_of, licence_of, read_card
from speech_reallm.modelfolder import find_model

CARD = """# a model

Text | with a bar.

| delay | WER, % | RTF |
| --- | ---: | ---: |
| 1 (`default`) | **7.5** | 0.03 |
| 0 | 8 | 0.03 |

## License

Apache-2.0,
and more.

Not this.
"""


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = cli.main(["models", *map(str, args)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def models(model_folder: Path, tmp_path: Path) -> Path:
    """Two good models and a damaged one."""
    for name in ("a", "b", "damaged"):
        shutil.copytree(model_folder, tmp_path / name)
    (tmp_path / "a" / "README.md").write_text(CARD)
    (tmp_path / "damaged" / "decoder.onnx").write_bytes(b"x")
    (tmp_path / "other").mkdir()
    return tmp_path


def test_a_model(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, models / "a")
    assert (code, err) == (0, "")
    rows = [" ".join(line.split()) for line in out.splitlines()]
    size = sum(f.stat().st_size for f in (models / "a").iterdir())
    for row in (
        "fake",
        "language en",
        f"size {size / 1e6:.1f} MB",
        "chunk 120 ms",
        "look-ahead 2 chunks (240 ms)",
        "decoder interleaving",
        "1 (default): a word is shown at most 480 ms after its last sound, and the computing",
        "licence Apache-2.0, and more.",
        "its card delay: 1 (default)",
        "WER, %: 7.5",
    ):
        assert row in rows, out


def test_a_model_whose_decoder_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model(tmp_path / "reading", frame_chunks=3)
    assert "cross-attending, the frames of the last 3 chunks (360 ms)" in run(capsys, folder)[1]
    model = json.loads(run(capsys, folder, "--json")[1])
    assert (model["decoder"], model["cross_attention_chunks"]) == ("cross-attending", 3)


def test_a_folder_of_models(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, models, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 2 and [Path(row["folder"]).name for row in rows] == ["a", "b"]
    assert "decoder.onnx is damaged" in err and err.count("\n") == 1
    assert rows[0]["figures"] == {"delay": "1 (default)", "WER, %": "7.5", "RTF": "0.03"}
    assert rows[1]["figures"] == {} and rows[1]["licence"] == "" and rows[1]["delays_ms"] == [360, 480, 600]


def test_no_model(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, words in ((models / "other", "no model in"), (models / "none", "no model folder")):
        code, out, err = run(capsys, folder)
        assert (code, out) == (2, "") and words in err and err.count("\n") == 1


def test_the_built_in_model_says_what_it_may_be_used_for(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--json")
    if code:
        pytest.skip(err)
    model = json.loads(out)
    assert model["built_in"] and "Apache-2.0" in model["licence"]
    assert any("WER" in name for name in model["figures"])


@pytest.mark.parametrize(
    "card", ["", "| a |", "| a |\n| --- |", "| a | b |\n| - | - |\n| 1 |", "# Licence", "a\n|\n|\n|"]
)
def test_cards_without_figures(card: str) -> None:
    assert figures_of(card) == {} and licence_of(card) == ""


def test_a_card_cannot_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"## Licence\n\n\x1b]0;evil\x07MIT\x9b2J\xff")
    assert licence_of(read_card(tmp_path / "README.md")).isprintable()
    assert read_card(tmp_path / "none.md") == ""


def test_models_inside_the_package_go_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them are shown, the default one first; a folder of such a name is meant by ./NAME."""
    for name in ("other", "default"):
        write_model(tmp_path / "models" / name)
    monkeypatch.setattr("speech_reallm.modelfolder.resources.files", lambda package: tmp_path)
    monkeypatch.chdir(tmp_path / "models")
    assert find_model(None) == find_model("default") == tmp_path / "models/default"
    assert find_model("other") == tmp_path / "models/other"
    assert find_model("./other") == Path("other")
    code, out, _ = run(capsys, "--json")
    assert code == 0
    shown = [json.loads(line) for line in out.splitlines()]
    assert [Path(model["folder"]).name for model in shown] == ["default", "other"]
    assert all(model["built_in"] for model in shown)
