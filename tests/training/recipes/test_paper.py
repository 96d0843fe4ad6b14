"""recipes/paper: the data is split by speaker, results are counted right, and docs/paper.md is made of them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from speech_reallm.errors import UserError
from speech_reallm.training.checkpoint import save_folder
from speech_reallm.training.config import DecoderConfig, EncoderConfig, ModelConfig, to_dict
from speech_reallm.training.export.folder import load_reallm
from speech_reallm.training.model.reallm import ReaLLM
from speech_reallm.training.run import load_config

ROOT = Path(__file__).parents[3]


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "recipes/paper" / f"{name}.py"), run_name=name)


def test_no_speaker_is_both_trained_on_and_chosen_on() -> None:
    split = script("split")["split"]
    rows = [{"id": f"{s}-{i}", "speaker": f"s{s:02}"} for s in range(20) for i in range(3)]
    train, held = split(rows)
    assert len(train) + len(held) == len(rows)
    assert {r["speaker"] for r in held} == {"s05", "s15"}
    assert not {r["speaker"] for r in train} & {r["speaker"] for r in held}
    # of a few speakers all are needed
    assert split(rows[:9]) == (rows[:9], [])


def test_mute_stretches_lack_words_and_not_merely_right_ones() -> None:
    mute = script("measure")["mute_stretches"]
    # ten words in ten seconds: a word a second
    every = [(i, i) for i in range(10)]
    assert mute(10, 10, every, 10.0) == 0
    # three words left out in the middle, two at the end
    assert mute(10, 7, [(0, 0), (1, 1), *((i, i - 3) for i in range(5, 10))], 10.0) == 1
    assert mute(10, 8, every[:8], 10.0) == 0
    # three words substituted
    assert mute(10, 10, [(0, 0), (1, 1), *every[5:]], 10.0) == 0
    assert mute(10, 0, [], 10.0) == 1
    assert mute(0, 4, [], 10.0) == 0


@pytest.mark.parametrize(
    ("text", "times"),
    [("", 0), ("a b c", 0), ("a a b", 1), ("go on go on now", 1), ("a b c a b c a b c", 2), ("a b a c", 0)],
)
def test_repeats(text: str, times: int) -> None:
    assert script("measure")["repeats"](text.split()) == times


def line(name: str, **values: Any) -> dict[str, Any]:
    row = {"id": name, "seconds": 4.0, "words": 10, "cpu_seconds": 0.2, "delays_ms": None}
    zero = ("substitutions", "deletions", "insertions", "leading_insertions", "mute_stretches", "repeats")
    return {**row, **dict.fromkeys(zero, 0), **values}


def test_figures_of_all_shares(tmp_path: Path) -> None:
    result = script("result")
    shares = [
        [line("a", substitutions=1, delays_ms=[400, 600]), line("b", deletions=2, mute_stretches=1)],
        [line("c", insertions=3, leading_insertions=1, seconds=12.0, delays_ms=[500])],
    ]
    for number, rows in enumerate(shares):
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = result["measured"](tmp_path)
    assert (found["utterances"], found["words"], found["wer"]) == (3, 30, 20.0)
    assert found["wer_95"][0] <= 20 <= found["wer_95"][1]
    assert (found["mute_stretches"], found["leading_insertions"], found["delay_utterances"]) == (1, 1, 2)
    assert found["emission_delay_ms"]["p50"] == 500
    assert found["cpu_per_audio_second"] == pytest.approx(0.6 / 20)
    assert [c["seconds"] for c in found["wer_by_length"]] == ["2-5", "10-15"]
    with pytest.raises(UserError, match=r"no lines of measure\.py"):
        result["measured"](tmp_path / "nothing")


def test_the_page_is_made_of_the_results() -> None:
    report = script("report")
    text = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    results = report["load"](ROOT / "recipes/paper/results")
    assert report["page"](text, results) == text, "recipes/paper/run.sh --report"
    with pytest.raises(ValueError, match="it has no"):
        report["page"]("no markers", results)


def test_a_result_is_a_row_of_the_tables() -> None:
    report = script("report")
    sets = {
        "utterances": 3, "words": 30, "wer": 20.0, "wer_95": [10.0, 30.0], "substitutions": 1, "deletions": 2,
        "insertions": 3, "leading_insertions": 1, "mute_stretches": 4, "repeats": 5, "delay_utterances": 2,
        "emission_delay_ms": {"p50": 500, "p90": 600}, "cpu_per_audio_second": 0.03,
        "wer_by_length": [{"seconds": "2-5", "wer": 15.0}],
    }  # fmt: skip
    result = {
        "name": "mine", "row": 1, "start": "default", "commit": "abc", "note": "noted", "training": None,
        "sets": {"librispeech-dev": sets},
    }  # fmt: skip
    made = report["tables"]([result])
    assert (
        "| mine | 3 | 20.0 (10.0 to 30.0) | 1 / 2 / 3 of 30 | 500 / 600 (2 utterances) | 0.030 | 1 | 4 | 5 |"
        in made
    )
    assert "- mine: noted" in made


def test_the_start_has_the_right_context_of_a_label_delay(tmp_path: Path) -> None:
    start = script("start")["start"]
    encoder = EncoderConfig(
        kind="waveform", layers=1, dim=16, heads=2, ffn=32, left_chunks=2, right_context=(1, 2)
    )
    decoder = DecoderConfig(layers=1, dim=32, heads=2, ffn=48, window=16, cross_attention_chunks=2)
    config = ModelConfig(encoder=encoder, decoder=decoder, vocab_size=30, delays=(0, 1, 2))
    model = ReaLLM(config)
    parts = {"model.safetensors": dict(model.state_dict()), "model.json": to_dict(config)}
    save_folder(tmp_path / "run/best", parts)
    (tmp_path / "run/tokenizer.model").write_bytes(b"pieces")
    (tmp_path / "run/model.safetensors").write_bytes((tmp_path / "run/best/model.safetensors").read_bytes())
    (tmp_path / "run/model.json").write_bytes((tmp_path / "run/best/model.json").read_bytes())
    start(tmp_path / "run", tmp_path / "out", 1)
    made = load_reallm(tmp_path / "out")
    assert made.config.encoder.right_context == (2,) and made.config.default_delay == 0
    rows = model.label_delay_embedding.weight
    torch.testing.assert_close(made.label_delay_embedding.weight, rows[[1, 2, 2]])
    with pytest.raises(UserError, match="no label delay of 5"):
        start(tmp_path / "run", tmp_path / "out", 5)


def test_the_script_and_its_training_files_fit_together() -> None:
    text = (ROOT / "recipes/paper/run.sh").read_text(encoding="utf-8")
    files = sorted(p for p in (ROOT / "recipes/paper").glob("*.yaml") if not p.name.startswith("_"))
    encoders = set()
    for path in files:
        config = load_config(str(path), [])
        assert path.stem in text
        assert config.out == f"out/paper/{path.stem}" and config.cache == "out/paper/frames"
        encoders.add(config.model.encoder)
    assert len(encoders) == 1, "one encoder for all"
