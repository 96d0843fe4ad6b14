"""A language model learns four clips by heart as a decoder, and its folder, with its own tokenizer, writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_overfit import EXACT, transcribed
from tiny import ENCODER, losses, make, run, tiny
from tiny_lm import write_language_model
from tones import Corpus

from speech_reallm.errors import UserError
from speech_reallm.tokenizer import open_tokenizer
from speech_reallm.training.config.pretrained import with_pretrained
from speech_reallm.training.data.labels import labels_of
from speech_reallm.training.data.manifests import load_manifest
from speech_reallm.training.export.folder import export_folder, load_reallm
from speech_reallm.training.tasks.llm import merged


@pytest.fixture
def end_as_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime pads the end with more silence than training, which models of four clips have never been fed."""
    monkeypatch.setattr("speech_reallm.engine.engine.LATE_CHUNKS", 0)


def settings(corpus: Corpus, folder: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """The plain data of a run on the cached frames of a frozen encoder."""
    write_language_model(folder / "lm", corpus.text)
    data = tiny(
        "reallm", corpus, out, **{**EXACT, "optim__steps": 300, "optim__lr": 8e-3},
        cache=str(folder / "cache"), optim__encoder_lr_scale=0.0, init=[str(folder / "lm")], **changes,
    )  # fmt: skip
    data["task"] = "llm"
    model = {
        "encoder": {**ENCODER, "dropout": 0.0},
        "decoder": {"pretrained": str(folder / "lm"), "window": 64},
    }
    data["model"] = with_pretrained({**model, "delays": [0, 1], "default_delay": 1})
    data["data"]["tokenizer"] = str(folder / "lm/tokenizer.json")
    return data


@pytest.mark.usefixtures("end_as_in_training")
def test_overfitted_clips_are_recognised_exactly(four_clips: Corpus, out: Path, tmp_path: Path) -> None:
    run(settings(four_clips, tmp_path, out, tune="full"))
    for int8 in (False, True):
        folder = export_folder(out, tmp_path / f"int8-{int8}", name="tiny", int8=int8)
        assert not (folder / "tokenizer.model").exists()
        assert json.loads((folder / "config.json").read_text())["tokenizer"] == "tokenizer.json"
        assert transcribed(folder, four_clips) == four_clips.texts


def test_lora_trains_little_and_is_saved_as_plain_weights(
    four_clips: Corpus, out: Path, tmp_path: Path
) -> None:
    data = settings(four_clips, tmp_path, out, tune="lora", lora_rank=4)
    data["optim"]["steps"], data["log_steps"] = 40, 5
    run(data)
    curve = losses(out)
    assert curve[-1] < 0.8 * curve[0]
    model = load_reallm(out)
    _, task = make(data)
    names = {name for name, p in task.model.decoder.named_parameters() if p.requires_grad}
    assert {name for name in names if ".lora_" not in name} == {"head.blank.weight", "head.blank.bias"}
    # what is saved has learnt, in all matrices of the layers and nowhere else
    base = {
        name.replace(".base_layer.", "."): value for name, value in task.model.decoder.state_dict().items()
    }
    moved = {name for name, value in model.decoder.state_dict().items() if not torch.equal(value, base[name])}
    matrices = {
        f"blocks.{i}.{m}.weight" for i in (0, 1) for m in ("q", "k", "v", "out", "gate", "up", "down")
    }
    assert moved == matrices | {"head.blank.weight", "head.blank.bias"}


def test_merged_weights_answer_as_the_adapters_do(four_clips: Corpus, out: Path, tmp_path: Path) -> None:
    _, task = make(settings(four_clips, tmp_path, out, tune="lora", lora_rank=4))
    decoder = task.model.decoder.eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if ".lora_" in name:
                # small, so that rounding is not amplified
                parameter.normal_(std=0.05)
        ids = torch.randint(3, 100, (2, 9))
        expected = decoder.text_logits(ids)
        frozen = {k: v.clone() for k, v in decoder.state_dict().items()}
        with merged(decoder):
            state, rows, found = decoder.init_state(2), torch.arange(2), []
            for piece in ids.unbind(1):
                state["piece"] = piece.clone()
                log_probs, update = decoder.step(state)
                found.append(log_probs)
                decoder.commit(state, rows, piece, update)
        torch.testing.assert_close(torch.stack(found, 1), expected.log_softmax(-1), atol=1e-3, rtol=1e-3)
    assert all(torch.equal(v, frozen[k]) for k, v in decoder.state_dict().items())


def test_the_projector_alone(four_clips: Corpus, out: Path, tmp_path: Path) -> None:
    _, task = make(settings(four_clips, tmp_path, out, tune="projector"))
    names = {name for name, p in task.model.named_parameters() if p.requires_grad and "encoder." not in name}
    expected = {"stacker.stack", "stacker.project", "label_delay_embedding", "decoder.head.blank"}
    assert {name.rpartition(".")[0] for name in names} == expected


def test_another_decoder_is_refused(four_clips: Corpus, out: Path) -> None:
    with pytest.raises(UserError, match=r"needs `model.decoder.pretrained`"):
        make(tiny("reallm", four_clips, out) | {"task": "llm"})


def test_words_are_spread_over_pieces_of_another_tokenizer(four_clips: Corpus, tmp_path: Path) -> None:
    """Where an alignment has words, their pieces end within them, in proportion to their letters."""
    write_language_model(tmp_path / "lm", four_clips.text)
    tokenizer = open_tokenizer(tmp_path / "lm/tokenizer.json")
    for cut in load_manifest(four_clips.aligned):
        labels = labels_of(cut, tokenizer)
        assert tokenizer.decode(labels.pieces) == four_clips.texts[cut.id]
        words = cut.supervisions[0].alignment["word"]
        ends = {round(end, 6) for end in labels.ends}
        assert {round(w.start + w.duration, 6) for w in words} <= ends
        assert labels.ends == sorted(labels.ends)
