"""A tiny recogniser learns four clips by heart, and every way to run it gives their words back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONFORMER, DECODER, ENCODER, losses, run, tiny
from tones import Corpus

from speech_reallm import Recognizer
from speech_reallm.tokenizer import Tokenizer
from speech_reallm.training.data.manifests import load_audio, load_manifest
from speech_reallm.training.export.folder import export_folder, load_reallm
from speech_reallm.training.model import greedy as search
from speech_reallm.training.model.encode import encode_batch
from speech_reallm.training.model.reallm import ReaLLM

EXACT: dict[str, Any] = {
    "optim__steps": 400, "optim__lr": 4e-3, "optim__ema": 0.0, "optim__warmup_steps": 20,
    "data__batch_seconds": 100, "log_steps": 20,
    "model__encoder": {**ENCODER, "dropout": 0.0}, "model__decoder": {**DECODER, "dropout": 0.0},
}  # fmt: skip


def greedy(model: ReaLLM, corpus: Corpus, delay: int) -> dict[str, str]:
    """What the model writes in torch, utterance by utterance."""
    tokenizer, written = Tokenizer(corpus.tokenizer), {}
    for cut in load_manifest(corpus.plain):
        audio = torch.from_numpy(load_audio(cut))[None]
        length = torch.tensor([audio.shape[1]])
        frames = encode_batch(model.encoder, audio, length, max(model.config.delays), bf16=False)
        chunks = -(-length // model.config.chunk_samples) + delay
        (pieces,) = search.greedy(model, frames, chunks, torch.tensor([delay]))
        written[cut.id] = tokenizer.decode(pieces)
    return written


def transcribed(folder: Path, corpus: Corpus) -> dict[str, str]:
    """What the exported folder writes, through the public API."""
    recognizer = Recognizer.load(folder)
    return {name: recognizer.transcribe(corpus.plain.parent / f"{name}.wav").text for name in corpus.texts}


@pytest.fixture(autouse=True)
def end_as_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime pads the end with more silence than training, which models of four clips have never been fed."""
    monkeypatch.setattr("speech_reallm.engine.engine.LATE_CHUNKS", 0)


def check_texts(run_folder: Path, clips: Corpus, tmp_path: Path) -> None:
    """Torch at every label delay, and folders in float and 8 bits, write exactly what was spoken."""
    with torch.no_grad():
        model = load_reallm(run_folder)
        for delay in model.config.delays:
            assert greedy(model, clips, delay) == clips.texts
    for name, int8 in (("float", False), ("int8", True)):
        folder = export_folder(run_folder, tmp_path / name, name=name, int8=int8)
        assert transcribed(folder, clips) == clips.texts


@pytest.mark.parametrize("kind", ["interleaving", "cross-attention"])
def test_overfitted_clips_are_recognised_exactly(
    kind: str, four_clips: Corpus, out: Path, tmp_path: Path
) -> None:
    changes = {**EXACT, "model__default_delay": 1}
    if kind == "cross-attention":
        settings = {"cross_attention_chunks": 6, "mlp_bias": True, "rotary_fraction": 0.5}
        changes |= {"perturbation_prob": 0.1, "model__decoder": EXACT["model__decoder"] | settings}
    run(tiny("reallm", four_clips, out, **changes))
    check_texts(out, four_clips, tmp_path)


def test_overfitted_clips_are_recognised_by_a_transducer(
    four_clips: Corpus, out: Path, tmp_path: Path
) -> None:
    """Trained without an alignment, on cached frames; torch and both kinds of folder write the same."""
    decoder = {"kind": "transducer", "layers": 1, "dim": 64}
    changes = EXACT | {
        "model__decoder": decoder,
        "model__default_delay": 1,
        "optim__steps": 300,
        "optim__lr": 8e-3,
    }
    # "du du du" may well be written after one embedding: nothing but the loss says where
    changes |= {
        "model__max_same_piece_per_chunk": 16,
        "cache": str(tmp_path / "cache"),
        "optim__encoder_lr_scale": 0.0,
    }
    run(tiny("transducer", four_clips, out, **changes))
    check_texts(out, four_clips, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__blank": "eos", "model__chunk_ms": 120},
        {"model__chunk_ms": 480, "model__encoder": {**CONFORMER, "dropout": 0.0}},
        {"model__encoder": {**CONFORMER, "dropout": 0.0}, "model__delays": [2], "model__default_delay": 2},
    ],
    ids=["eos, 120 ms", "Conformer, 480 ms", "Conformer, delay 2"],
)
def test_variants_learn_and_decode_alike_in_torch_and_onnx(
    changes: dict[str, Any], four_clips: Corpus, out: Path, tmp_path: Path
) -> None:
    settings = EXACT | {"model__default_delay": 1, "optim__steps": 80, "log_steps": 10} | changes
    run(tiny("reallm", four_clips, out, **settings))
    curve = losses(out)
    assert curve[-1] < 0.6 * curve[0]
    model = load_reallm(out)
    with torch.no_grad():
        expected = greedy(model, four_clips, model.config.default_delay)
    assert any(expected.values())
    folder = export_folder(out, tmp_path / "model", name="tiny", int8=False)
    assert transcribed(folder, four_clips) == expected
