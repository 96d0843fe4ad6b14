"""recipes/librispeech-960 from the corpus as it is published to a transcript, in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tones import sentences, speak

from speech_reallm.cli.main import main

RECIPE = Path(__file__).parents[3] / "recipes/librispeech-960"
SUBSETS = {"train-clean-100": 5, "train-clean-360": 4, "train-other-500": 4, "dev-clean": 2, "test-clean": 1}
SMALL = ("layers=2", "dim=32", "heads=2", "ffn=64", "conv_kernel=5")
QUICK = ("data.batch_seconds=12", "optim.warmup_steps=2", "optim.bf16=false", "log_steps=1")


def write_librispeech(root: Path) -> None:
    """A few utterances laid out as LibriSpeech is."""
    rng = np.random.default_rng(5)
    for number, (subset, count) in enumerate(SUBSETS.items()):
        folder = root / subset / str(100 + number) / "7"
        folder.mkdir(parents=True)
        lines = []
        for utterance, words in enumerate(sentences(count, rng)):
            name = f"{100 + number}-7-{utterance:04}"
            soundfile.write(folder / f"{name}.flac", speak(words, rng)[0], 16000)
            lines.append(f"{name} {' '.join(words).upper()}\n")
        (folder / f"{100 + number}-7.trans.txt").write_text("".join(lines))


def settings(*items: str) -> list[str]:
    return [word for item in items for word in ("--set", item)]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Manifests and tokenizer, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_librispeech(tmp_path / "LibriSpeech")
    assert main(["prepare", "librispeech", "LibriSpeech", "data/librispeech"]) == 0
    manifests = [f"data/librispeech/{s}.jsonl" for s in SUBSETS if s.startswith("train")]
    # the words repeat, or there would not be enough text for pieces
    Path("text.txt").write_text("\n".join(" ".join(w) for w in sentences(200, np.random.default_rng(0))))
    tokenizer = "out/librispeech-960/tokenizer.model"
    assert main(["tokenizer", *manifests, "text.txt", "--vocab", "24", "--out", tokenizer]) == 0
    return tmp_path


def test_from_corpus_to_transcript(prepared: Path, capsys: pytest.CaptureFixture) -> None:
    teacher = settings(*QUICK, "ctc.vocab_size=24", *(f"ctc.encoder.{s}" for s in SMALL), "optim.steps=8")
    assert main(["train", str(RECIPE / "1-teacher.yaml"), *teacher]) == 0
    for subset in SUBSETS:
        if subset.startswith("train"):
            plain, aligned = f"data/librispeech/{subset}.jsonl", f"data/librispeech/aligned/{subset}.jsonl.gz"
            assert main(["align", "out/librispeech-960/teacher", plain, aligned]) == 0
    encoder = ("layers=4", *SMALL[1:])
    decoder = ("dim=32", "heads=2", "ffn=64")
    reallm = settings(
        *QUICK,
        "model.vocab_size=24",
        *(f"model.encoder.{s}" for s in encoder),
        *(f"model.decoder.{s}" for s in decoder),
        "optim.steps=6",
    )
    assert main(["train", str(RECIPE / "2-reallm.yaml"), *reallm]) == 0
    run = Path("out/librispeech-960/reallm")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert sum(row["kind"] == "train" for row in rows) == 6
    assert any("wer" in row for row in rows if row["kind"] == "dev")
    model = "out/librispeech-960/model"
    assert main(["export", str(run), model, "--name", "librispeech-960"]) == 0
    # the look-ahead of the recipe, whatever the size
    config = json.loads(Path(model, "config.json").read_text())
    assert config["lookahead_chunks"] * config["chunk_ms"] == 960
    (clip,) = Path("LibriSpeech/test-clean").rglob("*.flac")
    capsys.readouterr()
    assert main(["transcribe", str(clip), "--model", model]) == 0
