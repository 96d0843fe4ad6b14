import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("pocketsphinx")
pytest.importorskip("matplotlib")

from alignment import synthetic

from speech_reallm.training.align.ctc_teacher import CTCTeacher

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "alignment_quality.py"


class Steady:
    """A model for which every piece is about equally likely everywhere: its words are spread in some way."""

    frame_seconds = 0.02

    def __init__(self, vocab):
        self.vocab = vocab

    def log_probs(self, audio, lengths):
        import torch

        noise = torch.randn(len(audio), audio.shape[1] // 320, self.vocab, generator=torch.manual_seed(0))
        return noise.log_softmax(-1), lengths // 320


@pytest.mark.skipif(not synthetic.available(), reason="needs flite")
def test_one_command_writes_page_plot_and_figures(tmp_path, tokenizer, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    script = importlib.import_module(SCRIPT.stem)

    def load(folder, device, **settings):
        return CTCTeacher(Steady(len(tokenizer)), tokenizer, device=device, **settings)

    monkeypatch.setattr(CTCTeacher, "load", load)
    sentences = ["The cat sat on the mat, and so did the dog.", "He had a hat, a coat and a bag with him."]
    text = tmp_path / "text.txt"
    text.write_text("\n".join(sentences) + "\n")
    audio, _ = synthetic.speak_sentence(sentences[0], "slt")
    soundfile.write(tmp_path / "a.wav", audio, 16000)
    row = {"audio": "a.wav", "text": sentences[0].upper(), "duration": len(audio) / 16000}
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
    out = tmp_path / "docs"
    script.main(
        ["--teacher", "t", "--manifest", str(tmp_path / "m.jsonl"), "--text", str(text), "--sentences", "2",
         "--out", str(out), "--json", str(tmp_path / "figures.json")]
    )  # fmt: skip
    page = (out / "alignment.md").read_text()
    assert "| synthetic sentences: pocketsphinx, against known |" in page
    assert "| speech (m): teacher, against pocketsphinx |" in page
    assert (out / "alignment.png").stat().st_size > 1000
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["synthetic sentences: pocketsphinx"]["start"]["median_abs"] < 25
    # a teacher that guesses is not mistaken for a good one
    assert figures["synthetic sentences: teacher"]["end"]["median_abs"] > 60
    assert np.isfinite(figures["speech (m): teacher"]["end"]["bias"])
