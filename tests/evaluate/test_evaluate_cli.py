"""`reallm evaluate` from its arguments to its files and exit codes, with a made-up recogniser."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from evaluate_fakes import FakeRecognizer, FakeStream, word, write_manifest

from speech_reallm.cli import evaluate as verb
from speech_reallm.cli.main import main
from speech_reallm.errors import UserError

SPOKEN = [{"word": "A", "start": 0.0, "end": 0.2}, {"word": "B", "start": 0.2, "end": 0.5}]

KEYS = {
    "model", "manifest", "normalizer", "delay", "threads", "clock", "complete", "recordings", "utterances", "hours",
    "wer", "wer_95", "words", "substitutions", "deletions", "insertions", "leading_insertions",
    "rtf", "rtf_cpu", "chunk_compute_ms", "finalize_ms", "wer_by_length", "writing", "worst",
    "worst_words",
    "emission_delay_ms", "delay_words", "delay_words_late", "delay_utterances", "delay_source", "delay_note",
}  # fmt: skip


class Loader:
    """Stands in for the Recognizer class; remembers how it was loaded."""

    def __init__(self, recognizer: Any) -> None:
        self.recognizer = recognizer
        self.asked: list[tuple[Any, dict[str, Any]]] = []

    def load(self, model: str, **options: Any) -> Any:
        self.asked.append((model, options))
        return self.recognizer


def install(monkeypatch: pytest.MonkeyPatch, recognizer: Any) -> Loader:
    loader = Loader(recognizer)
    module = ModuleType("speech_reallm.recognizer")
    module.Recognizer = loader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "speech_reallm.recognizer", module)
    return loader


def reallm_evaluate(*arguments: Any) -> int:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args([str(a) for a in arguments]))


def test_figures_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = install(monkeypatch, FakeRecognizer([word("um", 0.24), word("a", 0.48), word("x", 0.72)]))
    manifest = write_manifest(tmp_path, [{"words": SPOKEN}, {"words": SPOKEN}])
    out, hyp = tmp_path / "out.json", tmp_path / "hyp.jsonl"
    code = reallm_evaluate(
        "model", manifest, "--json", out, "--hyp", hyp, "--report", tmp_path / "r", "--delay", 2
    )
    assert code == 0
    assert loader.asked == [("model", {"threads": 1, "delay": 2})]

    figures = json.loads(out.read_text())
    assert set(figures) == KEYS
    assert (figures["wer"], figures["words"]) == (100.0, 4)
    assert (figures["substitutions"], figures["deletions"], figures["insertions"]) == (2, 0, 2)
    assert figures["leading_insertions"] == 2
    assert (figures["utterances"], figures["hours"]) == (2, pytest.approx(2 / 3600, rel=0.1))
    assert (figures["delay"], figures["threads"], figures["complete"]) == (2, 1, True)
    assert figures["recordings"] is False
    assert (figures["delay_source"], figures["delay_note"], figures["delay_words"]) == ("manifest", None, 2)
    # "a" ends at 0.2 s and is shown at 0.48 s; this recogniser takes next to no time
    assert set(figures["emission_delay_ms"]) == {"p50", "p90", "p99"}
    assert figures["emission_delay_ms"]["p50"] == pytest.approx(280, abs=20)
    assert set(figures["chunk_compute_ms"]) == set(figures["finalize_ms"]) == {"p50", "p99"}
    assert figures["wer_by_length"] == [{"seconds": "0-2", "utterances": 2, "words": 4, "wer": 100.0}]
    assert figures["worst"][0] == {
        "id": "u0", "errors": 2, "words": 2, "reference": "a b", "hypothesis": "um a x",
    }  # fmt: skip

    lines = [json.loads(line) for line in hyp.read_text().splitlines()]
    assert [(r["id"], r["text"], r["reference"]) for r in lines] == [
        ("u0", "um a x", "A B"),
        ("u1", "um a x", "A B"),
    ]
    assert lines[0]["words"][1]["word"] == "a"
    printed = capsys.readouterr().out
    assert "100.00 %" in printed and "2 sub, 0 del, 2 ins" in printed
    report = (tmp_path / "r" / "report.md").read_text()
    for plot in ("wer_by_length.png", "emission_delay.png"):
        assert plot in report and (tmp_path / "r" / plot).stat().st_size > 1000


def test_normalizer_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRecognizer([word("mister", 0.3), word("twenty", 0.5), word("one", 0.9)]))
    row = {"text": "Mr. 21", "words": []}
    manifest = write_manifest(tmp_path, [row])
    rates = {}
    for name in ("librispeech", "whisper"):
        assert reallm_evaluate("m", manifest, "--json", tmp_path / "o.json", "--normalizer", name) == 0
        rates[name] = json.loads((tmp_path / "o.json").read_text())["wer"]
    assert rates["whisper"] == 0.0 < rates["librispeech"]


def test_without_word_times_the_delay_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRecognizer([word("a", 0.3)]))
    monkeypatch.setattr("speech_reallm.evaluate.times.importlib.util.find_spec", lambda name: None)
    manifest = write_manifest(tmp_path, [{}])
    assert reallm_evaluate("m", manifest, "--json", tmp_path / "o.json") == 0
    figures = json.loads((tmp_path / "o.json").read_text())
    assert figures["emission_delay_ms"] == {"p50": None, "p90": None, "p99": None}
    assert (figures["delay_source"], figures["delay_words"]) == (None, 0)
    assert "pocketsphinx" in figures["delay_note"]


def test_interrupt_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(FakeRecognizer):
        streams = 0

        def stream(self, sample_rate: int) -> FakeStream:
            # the first stream warms up
            self.streams += 1
            if self.streams == 4:
                raise KeyboardInterrupt
            return super().stream(sample_rate)

    install(monkeypatch, Interrupted([word("a", 0.3), word("b", 0.5)]))
    manifest = write_manifest(tmp_path, [{"words": SPOKEN}] * 5)
    assert reallm_evaluate("m", manifest, "--json", tmp_path / "o.json") == 130
    figures = json.loads((tmp_path / "o.json").read_text())
    assert (figures["utterances"], figures["wer"], figures["complete"]) == (2, 0.0, False)
    captured = capsys.readouterr()
    assert "stopped after 2 of 5" in captured.err
    assert "0.00 %" in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "--threads"),
        (["--limit", "0"], "--limit"),
        (["--clock", "cpu", "--threads", "2"], "--clock cpu"),
        (["--json", "no/such/folder/o.json"], "folder does not exist"),
        (["--alignments", "none.jsonl.gz"], "cannot read none.jsonl.gz"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    loader = install(monkeypatch, FakeRecognizer([]))
    with pytest.raises(UserError, match=message):
        reallm_evaluate("m", write_manifest(tmp_path, [{}]), *arguments)
    assert not loader.asked


def test_unreadable_audio_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRecognizer([]))
    (tmp_path / "broken.wav").write_bytes(b"RIFFnot audio at all")
    with pytest.raises(UserError, match=r"broken\.wav"):
        reallm_evaluate("m", write_manifest(tmp_path, [{"audio": "broken.wav"}]))


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, FakeRecognizer([word("a", 0.3), word("b", 0.5)]))
    manifest = str(write_manifest(tmp_path, [{"words": SPOKEN}]))
    assert main(["evaluate", "m", manifest]) == 0
    assert "0.00 %" in capsys.readouterr().out
    assert main(["evaluate", "m", str(tmp_path / "none.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("reallm: error: cannot read")
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "m"])
    assert stop.value.code == 2
