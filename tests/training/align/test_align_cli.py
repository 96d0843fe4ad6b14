import argparse

import pytest

from speech_reallm.cli import align as cli
from speech_reallm.errors import UserError
from speech_reallm.training.align.ctc_teacher import CTCTeacher
from speech_reallm.training.data.manifests import load_manifest


def call(*args):
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.run(parser.parse_args([*map(str, args), "--device", "cpu"]))


@pytest.fixture
def loaded(teacher, tokenizer, monkeypatch):
    def load(folder, device, **settings):
        return CTCTeacher(teacher, tokenizer, {"teacher": folder}, device=device, **settings)

    monkeypatch.setattr(CTCTeacher, "load", load)
    return teacher


def test_align(corpus, loaded, capsys, tmp_path):
    out = tmp_path / "deep" / "out.jsonl.gz"
    assert call("run", corpus[0], out, "--min-score", "-1", "--shift-ms", "20", "--peaks") == 0
    printed = capsys.readouterr()
    assert "aligned 10 of 10 utterances" in printed.out and "median -0.050" in printed.out
    assert "aligning: 100%" in printed.err and "left]" in printed.err
    piece = load_manifest(out)["u2"].supervisions[0].alignment["piece"][0]
    assert round((piece.start - 0.02) / loaded.frame_seconds, 3) == corpus[1]["u2"][0][0]


def test_ctrl_c_says_how_to_go_on(corpus, loaded, capsys, tmp_path, monkeypatch):
    hear = loaded.log_probs
    monkeypatch.setattr(loaded, "log_probs", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
    out = tmp_path / "out.jsonl.gz"
    assert call("run", corpus[0], out) == 130
    assert "goes on from here" in capsys.readouterr().err
    monkeypatch.setattr(loaded, "log_probs", hear)
    assert call("run", corpus[0], out) == 0


def test_mistakes(corpus, tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        call(tmp_path / "none", corpus[0], tmp_path / "o.jsonl.gz")
    with pytest.raises(UserError, match="tokenizer"):
        call(tmp_path, corpus[0], tmp_path / "o.jsonl.gz")
    with pytest.raises(UserError, match="--batch-seconds"):
        call(tmp_path, corpus[0], tmp_path / "o.jsonl.gz", "--batch-seconds", "0")
