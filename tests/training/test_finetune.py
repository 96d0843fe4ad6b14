"""Fine-tuning: what is collected, which weights are chosen, and a whole run that is stopped and goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse.supervision import AlignmentItem
from tiny import run as train_tiny
from tiny import tiny
from tones import Corpus

from speech_reallm import Recognizer, UserError
from speech_reallm.cli import main as cli
from speech_reallm.tokenizer import Tokenizer
from speech_reallm.training import finetune
from speech_reallm.training.align.teacher import AlignedText
from speech_reallm.training.export.folder import export_folder, load_reallm
from speech_reallm.training.finetune import FineTune, Options, best_share, between


class EvenTeacher:
    """The pieces of a text share its time evenly."""

    scored = False

    def __init__(self, tokenizer: Path) -> None:
        self.identity: dict[str, Any] = {"teacher": "even"}
        self.tokenizer = Tokenizer(tokenizer)

    def clean(self, text: str) -> str:
        return text

    def align(self, audio: Sequence[np.ndarray], texts: Sequence[str]) -> list[AlignedText | None]:
        result: list[AlignedText | None] = []
        for samples, text in zip(audio, texts, strict=True):
            pieces = self.tokenizer.encode_pieces(text)
            each = len(samples) / 16000 / max(1, len(pieces))
            items = [AlignmentItem(p, i * each, each, 0.0) for i, p in enumerate(pieces)]
            result.append(AlignedText(pieces=items, score=0.0))
        return result


@pytest.fixture(scope="module")
def model(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    train_tiny(tiny("reallm", corpus, folder / "run", optim__steps=2))
    return export_folder(folder / "run", folder / "model", name="tiny")


@pytest.fixture
def recordings(corpus: Corpus, tmp_path: Path) -> Path:
    """A folder with FILE.txt beside each file but for two, and what is no sound."""
    folder = tmp_path / "recordings"
    (folder / "deeper").mkdir(parents=True)
    for number, (name, text) in enumerate(sorted(corpus.texts.items())):
        target = folder / ("deeper" if number % 2 else ".") / f"{name}.wav"
        shutil.copy(corpus.plain.parent / f"{name}.wav", target)
        target.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    (folder / "noise.wav").write_bytes(b"no sound at all")
    (folder / "noise.txt").write_text("ba du", encoding="utf-8")
    soundfile.write(folder / "long.wav", np.zeros(16000 * 30, np.float32), 16000)
    (folder / "long.txt").write_text("ba du", encoding="utf-8")
    return folder


def options_of(recordings: Path, model: Path, corpus: Corpus, tmp_path: Path) -> Options:
    return Options(
        recordings=recordings,
        out=tmp_path / "adapted",
        model=str(model),
        general=corpus.plain,
        minutes=0.05,
        batch_seconds=5.0,
        learning_rate=1e-3,
    )


def test_a_run_that_is_stopped_goes_on(
    recordings: Path, model: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "MEASURED", 8)
    options = options_of(recordings, model, corpus, tmp_path)
    told: list[str] = []
    teacher = EvenTeacher(corpus.tokenizer)
    with monkeypatch.context() as patch:

        def stop(self: FineTune) -> float:
            raise KeyboardInterrupt

        patch.setattr(FineTune, "_choose", stop)
        with pytest.raises(KeyboardInterrupt):
            FineTune(options, told.append, teacher).run()
    work = tmp_path / "adapted.finetune"
    trained = (work / "run" / "best" / "model.safetensors").stat().st_mtime_ns
    assert "24 utterances" in " ".join(told) and "5 are held out" in " ".join(told)
    assert any("noise.wav" in line for line in told) and any("long.wav: longer" in line for line in told)
    train = {json.loads(line)["id"] for line in (work / "train.jsonl").read_text().splitlines()}
    held = {json.loads(line)["id"] for line in (work / "held-out.jsonl").read_text().splitlines()}
    assert len(train) == 19 and len(held) == 5 and not train & held

    report = FineTune(options, told.append, teacher).run()
    assert (work / "run" / "best" / "model.safetensors").stat().st_mtime_ns == trained
    assert set(report.before) == set(report.after) == {"held-out", "general"}
    assert report.before["general"].utterances == 8
    assert Recognizer.load(options.out).model.name == "adapted"
    assert "before" in (options.out / "README.md").read_text()
    # a third time there is nothing left to do
    assert FineTune(options, told.append, teacher).run() == report
    with pytest.raises(UserError, match="another seed"):
        FineTune(Options(**{**{f: getattr(options, f) for f in options.__dataclass_fields__}, "seed": 2}))


def test_recordings_without_text_are_transcribed_and_cut(
    model: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in corpus.texts:
        shutil.copy(corpus.plain.parent / f"{name}.wav", folder)
    monkeypatch.setattr(finetune, "LEAST_CONFIDENCE", 0.0)
    monkeypatch.setattr(finetune, "SHORTEST", 0.0)
    monkeypatch.setattr(finetune, "LEAST_HELD_OUT", 1)

    class Words(Recognizer):
        def transcribe(self, *args: Any, on_event: Any, **options: Any) -> Any:
            from speech_reallm import Final, Word

            for start in (0.2, 0.8):
                word = Word("ba", start, start + 0.3, 0.9, start + 0.5)
                on_event(Final("ba", (word,), word.start, word.end))

    monkeypatch.setattr(finetune, "Recognizer", Words)
    task = FineTune(options_of(folder, model, corpus, tmp_path), lambda text: None)
    task._collect()
    rows = [json.loads(line) for line in (task.work / "train.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} == {"model"} and {row["text"] for row in rows} == {"ba"}
    info = soundfile.info(task.work / rows[0]["audio"])
    assert info.duration == pytest.approx(rows[0]["duration"], abs=1e-3) and 0.4 < info.duration < 1.2


def test_the_share_that_forgets_nothing() -> None:
    tried = {
        0.0: {"held-out": 20.0, "general": 10.0},
        0.5: {"held-out": 15.0, "general": 10.4},
        1.0: {"held-out": 10.0, "general": 10.6},
    }
    assert best_share(tried) == 0.5
    tried[0.5]["general"] = 10.51
    assert best_share(tried) == 0.0
    assert best_share({s: {"held-out": r["held-out"]} for s, r in tried.items()}) == 1.0


def test_weights_between(model: Path) -> None:
    start, end = load_reallm(model), load_reallm(model)
    with torch.no_grad():
        for value in end.parameters():
            value.add_(1.0)
    name, mine = next(iter(start.named_parameters()))
    torch.testing.assert_close(between(start, end, 0.25).state_dict()[name], mine.detach() + 0.25)


def test_what_cannot_be_adapted(
    recordings: Path, model: Path, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        ([tmp_path / "nowhere", tmp_path / "out"], "does not exist"),
        ([recordings, model], "name another folder"),
        ([recordings, tmp_path / "out", "--minutes", "0"], "--minutes"),
    ):
        assert cli.main(["finetune", *map(str, arguments), "--model", str(model)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("reallm: error: ") and words in error
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(next(recordings.glob("*.wav")), few)
    task = FineTune(options_of(few, model, corpus, tmp_path), lambda text: None)
    with pytest.raises(UserError, match=r"too few|no recordings"):
        task._collect()
