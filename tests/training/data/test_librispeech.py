import argparse
import json

import numpy as np
import pytest
import soundfile

from speech_reallm.cli import prepare
from speech_reallm.errors import UserError
from speech_reallm.training.data.manifests import load_audio, load_manifest


@pytest.fixture
def corpus(tmp_path):
    """A miniature corpus: two subsets, tones of 0.5, 0.6, ... s for speech."""
    root = tmp_path / "LibriSpeech"
    layout = {"train-clean-100": [(103, 1240), (103, 1241)], "dev-clean": [(84, 121123)]}
    for subset, chapters in layout.items():
        for speaker, chapter in chapters:
            folder = root / subset / str(speaker) / str(chapter)
            folder.mkdir(parents=True)
            lines = []
            for i in range(3):
                name = f"{speaker}-{chapter}-{i:04d}"
                tone = 0.1 * np.sin(np.arange(round(16000 * (0.5 + 0.1 * i))) * 0.1)
                soundfile.write(folder / f"{name}.flac", tone.astype(np.float32), 16000)
                lines.append(f"{name} IT'S UTTERANCE {'ABC'[i]}\n")
            (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    (root / "README.TXT").write_text("not a subset")
    return root


def run(*args):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    return prepare.run(parser.parse_args(["librispeech", *map(str, args)]))


def test_all_subsets(corpus, tmp_path, capsys):
    out = tmp_path / "far" / "out"
    assert run(corpus, out) == 0
    assert sorted(p.name for p in out.iterdir()) == ["dev-clean.jsonl", "train-clean-100.jsonl"]
    assert "6 utterances" in capsys.readouterr().out
    cuts = load_manifest(out / "train-clean-100.jsonl")
    assert [c.id for c in cuts][:4] == ["103-1240-0000", "103-1240-0001", "103-1240-0002", "103-1241-0000"]
    cut = cuts["103-1241-0002"]
    supervision = cut.supervisions[0]
    assert (supervision.text, supervision.speaker) == ("IT'S UTTERANCE C", "103")
    assert supervision.custom["split"] == "train-clean-100"
    assert len(load_audio(cut)) == cut.num_samples == 11200
    assert not json.loads((out / "dev-clean.jsonl").read_text().splitlines()[0])["audio"].startswith("/")


def test_the_folder_above_and_one_subset(corpus, tmp_path):
    assert run(corpus.parent, tmp_path / "out", "--subset", "dev-clean") == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["dev-clean.jsonl"]


def test_mistakes_are_named(corpus, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="not a folder"):
        run(tmp_path / "none", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no LibriSpeech"):
        run(tmp_path / "empty", out)
    with pytest.raises(UserError, match="no subset test-clean; it has dev-clean, train-clean-100"):
        run(corpus, out, "--subset", "test-clean")


def test_a_fault_in_the_corpus_leaves_no_manifest(corpus, tmp_path):
    folder = corpus / "dev-clean" / "84" / "121123"
    flac = folder / "84-121123-0001.flac"
    audio = flac.read_bytes()
    for spoil, message in [
        (flac.unlink, r"line 2: audio file .*0001\.flac does not exist"),
        (lambda: flac.write_bytes(b"junk"), r"cannot read .*0001\.flac"),
        (lambda: (flac.write_bytes(audio), (folder / "84-121123.trans.txt").write_text("84-121123-0000\n")),
         "line 1: expected"),
    ]:  # fmt: skip
        spoil()
        with pytest.raises(UserError, match=message):
            run(corpus, tmp_path / "out", "--subset", "dev-clean")
        assert list((tmp_path / "out").iterdir()) == []
