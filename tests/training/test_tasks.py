"""Every task lowers its loss, and writes what the next one reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import losses, make, run, tiny
from tones import Corpus

from speech_reallm.errors import UserError
from speech_reallm.training.align.ctc_teacher import CTCTeacher
from speech_reallm.training.data.manifests import load_audio, load_manifest
from speech_reallm.training.loop import train
from speech_reallm.training.model.decoders import Path as Interleaving
from speech_reallm.training.model.offline_teacher import STREAMING_ONLY
from speech_reallm.training.tasks.base import Task
from speech_reallm.training.teacher_forcing import scheduled_sampling
from speech_reallm.training.weights import load_weights


@pytest.mark.parametrize("tail", [0.0, 1.0])
def test_distillation_brings_the_streaming_encoder_near_its_teacher(
    tail: float, corpus: Corpus, tmp_path: Path
) -> None:
    # any encoder will do as a teacher
    run(tiny("ctc", corpus, tmp_path / "teacher", optim__steps=1))
    teacher = str(tmp_path / "teacher")
    data = tiny(
        "distill", corpus, tmp_path / "student", distillation_teacher=teacher, data__dev=str(corpus.plain)
    )
    data["teacher_padding_seconds"] = tail
    data["optim"] |= {"steps": 25, "lr": 3e-3}
    best = run(data)
    curve = losses(tmp_path / "student")
    assert sum(curve[-3:]) < 0.8 * sum(curve[:3])
    assert best["loss"] < curve[0]
    # the recogniser starts from it
    _, task = make(tiny("reallm", corpus, tmp_path / "next", init=[str(tmp_path / "student")]))
    weights = load_weights(tmp_path / "student")
    assert all(torch.equal(task.model.state_dict()[name], value) for name, value in weights.items())


def test_the_padding_is_the_teachers_alone(corpus: Corpus, tmp_path: Path) -> None:
    run(tiny("ctc", corpus, tmp_path / "teacher", optim__steps=1))
    data = tiny("distill", corpus, tmp_path / "student", distillation_teacher=str(tmp_path / "teacher"))
    heard = []
    for seconds in (0.0, 0.5):
        _, task = make({**data, "teacher_padding_seconds": seconds})
        batch = next(iter(task.source.batches(0, 0, task.collate)))
        task._teacher[0].register_forward_hook(lambda _, args, out: heard.append((*args, out.shape[1])))
        task.model.encoder.register_forward_hook(
            lambda _, args, out: heard.append((*args, None, out.shape[1]))
        )
        task(batch)
    (own, _, _), (_, lengths, _), (longer_own, _, _), (_, longer, _) = heard
    assert torch.equal(own, longer_own)
    assert torch.equal(longer - lengths, torch.full_like(lengths, 8000))


@pytest.mark.parametrize("cached", [True, False])
def test_teacher_learns(cached: bool, corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "teacher"
    data = tiny("ctc", corpus, out, data__dev=str(corpus.plain), data__dev_utterances=8)
    data["optim"] |= {"steps": 40, "lr": 4e-3}
    if cached:
        data |= {"cache": str(tmp_path / "cache")}
        data["optim"]["encoder_lr_scale"] = 0
    best = run(data)
    curve = losses(out)
    assert sum(curve[-3:]) < 0.7 * sum(curve[:3])
    assert 0 <= best["wer"] <= 100
    teacher = CTCTeacher.load(out)
    cut = next(iter(load_manifest(corpus.plain)))
    (result,) = teacher.align([load_audio(cut)], [corpus.texts[cut.id]])
    assert result is not None
    assert [i.symbol for i in result.pieces] == teacher.tokenizer.encode_pieces(corpus.texts[cut.id])


def test_language_model_learns_and_the_recogniser_starts_from_it(corpus: Corpus, tmp_path: Path) -> None:
    best = run(tiny("lm", corpus, tmp_path / "lm", optim__steps=40, optim__lr=1e-2, optim__ema=0.0))
    curve = losses(tmp_path / "lm")
    assert curve[-1] < 0.8 * curve[0]
    assert best["loss"] < curve[0]
    _, task = make(tiny("reallm", corpus, tmp_path / "next", init=[str(tmp_path / "lm")]))
    _, language = make(tiny("lm", corpus, tmp_path / "other", init=[str(tmp_path / "lm")]))
    for name, value in language.model.state_dict().items():
        assert torch.equal(task.model.state_dict()[name], value)


def test_recogniser_on_frames_that_never_change_equals_audio(corpus: Corpus, tmp_path: Path) -> None:
    """The cache only saves computing: a frozen encoder on audio gives the same losses."""
    settings = {"optim__encoder_lr_scale": 0, "model__encoder__dropout": 0.0, "model__decoder__dropout": 0.0}
    audio = tiny("reallm", corpus, tmp_path / "audio", **settings)
    frames = tiny("reallm", corpus, tmp_path / "frames", **settings, cache=str(tmp_path / "cache"))
    for data in (audio, frames):
        # the shape of a batch must not matter, and its members are found in another order
        data["data"]["batch_seconds"] = 1000
        data["optim"] |= {"steps": 3, "lr": 1e-4}
        data["model"] |= {"delays": [1], "default_delay": 1}
        run(data)
    assert losses(tmp_path / "frames") == pytest.approx(losses(tmp_path / "audio"), rel=1e-2)


def test_cache_that_was_cut_off_goes_on(corpus: Corpus, tmp_path: Path) -> None:
    data = tiny("reallm", corpus, tmp_path / "a", cache=str(tmp_path / "cache"), optim__encoder_lr_scale=0)
    data["optim"]["steps"] = 1
    make(data)
    index, frames = tmp_path / "cache" / "index.jsonl", tmp_path / "cache" / "frames.f16"
    lines, whole = index.read_text().splitlines(), np.fromfile(frames, np.float16)
    rows = {json.loads(line)["key"]: json.loads(line) for line in lines}
    index.write_text("\n".join(lines[:10]) + "\n" + lines[10][:20])
    with frames.open("ab") as file:
        file.truncate(len(whole) * 2 - 1000)
    make(data)
    again = {json.loads(line)["key"]: json.loads(line) for line in index.read_text().splitlines()}
    assert again.keys() == rows.keys()
    remade = np.fromfile(frames, np.float16)
    dim = data["model"]["encoder"]["dim"]
    for key, row in rows.items():
        a = whole.reshape(-1, dim)[row["offset"] :][: row["frames"]]
        b = remade.reshape(-1, dim)[again[key]["offset"] :][: again[key]["frames"]]
        assert row["own"] == again[key]["own"]
        np.testing.assert_allclose(a, b, atol=2e-2)


def test_cache_of_another_encoder_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    data = tiny("reallm", corpus, tmp_path / "a", cache=str(tmp_path / "cache"), optim__encoder_lr_scale=0)
    make(data)
    with pytest.raises(UserError, match="was made by another encoder"):
        make({**data, "seed": 2})
    trained = {**data, "optim": {**data["optim"], "encoder_lr_scale": 1.0}}
    with pytest.raises(UserError, match="frozen encoder"):
        make(trained)
    with pytest.raises(UserError, match="works on cached frames"):
        make({**trained, "splice_share": 0.5, "cache": None})
    with pytest.raises(UserError, match="other frames at each label delay"):
        make(
            {
                **data,
                "model": {**data["model"], "encoder": {**data["model"]["encoder"], "right_context": [1, 2]}},
            }
        )


def test_an_offline_recogniser_teaches(corpus: Corpus, tmp_path: Path) -> None:
    """Its frames and its predictions come near, whatever the path; it gets no noise and stays what it is."""
    reading = {"cross_attention_chunks": 4, "mlp_bias": True}
    settings = {f"model__decoder__{k}": v for k, v in reading.items()}
    # any recogniser will do as a teacher
    run(tiny("reallm", corpus, tmp_path / "teacher", **settings, optim__steps=1))
    teacher = str(tmp_path / "teacher")
    data = tiny("reallm", corpus, tmp_path / "student", **settings, distillation_teacher=teacher, seed=2)
    data["perturbation_prob"] = 0.2
    data |= {"teacher_padding_seconds": 0.5, "soft_label_weight": 1.0, "frame_distillation_weight": 1.0}
    data["optim"] |= {"steps": 30, "lr": 3e-3, "new_parameters": [".chunk_age"]}
    run(data)
    rows = [json.loads(line) for line in (tmp_path / "student" / "log.jsonl").read_text().splitlines()]
    errors = [row["frame_distillation"] for row in rows if row["kind"] == "train"]
    assert sum(errors[-3:]) < 0.7 * sum(errors[:3])
    curve = losses(tmp_path / "student")
    assert sum(curve[-3:]) < 0.9 * sum(curve[:3])
    assert not any(
        "teacher" in name for name in load_file(tmp_path / "student" / "best" / "model.safetensors")
    )


def test_a_decoder_begins_part_of_the_way_to_the_teacher(corpus: Corpus, tmp_path: Path) -> None:
    settings = {"model__decoder__cross_attention_chunks": 4, "optim__steps": 1}
    first, second = tmp_path / "first", tmp_path / "second"
    run(tiny("reallm", corpus, first, **settings))
    run(tiny("reallm", corpus, second, **settings, seed=2))
    _, task = make(
        tiny(
            "reallm",
            corpus,
            tmp_path / "c",
            **settings,
            init=[str(first)],
            distillation_teacher=str(second),
            weight_interpolation=0.25,
        )
    )
    ours, theirs = (load_file(folder / "best" / "model.safetensors") for folder in (first, second))
    for name, weight in task.model.state_dict().items():
        # the age of frames and the count of chunks are nothing to an offline decoder
        share = 0.25 if name.startswith("decoder.") and not name.endswith(STREAMING_ONLY) else 0.0
        torch.testing.assert_close(weight, ours[name].lerp(theirs[name], share))


def test_only_a_cross_attending_decoder_is_distilled_or_perturbed(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="perturbation_prob needs a cross-attending decoder"):
        make(tiny("reallm", corpus, tmp_path / "a", perturbation_prob=0.1))
    with pytest.raises(UserError, match="distillation_teacher needs a cross-attending decoder"):
        make(tiny("reallm", corpus, tmp_path / "a", distillation_teacher=str(tmp_path)))
    settings = {"model__decoder__cross_attention_chunks": 4}
    run(tiny("ctc", corpus, tmp_path / "encoder", optim__steps=1))
    with pytest.raises(UserError, match="has no decoder"):
        make(
            tiny("reallm", corpus, tmp_path / "a", **settings, distillation_teacher=str(tmp_path / "encoder"))
        )


def test_pieces_are_replaced_by_what_the_model_would_write(corpus: Corpus, tmp_path: Path) -> None:
    _, task = make(tiny("reallm", corpus, tmp_path, model__decoder__dropout=0.0))
    batch = next(task.source.batches(0, 0, task.collate))
    with torch.no_grad():
        frames = task.model.encoder(batch.audio)
        # so sure of itself that every draw is the best answer
        task.model.decoder.head.weight *= 1e4
        logits = task.model(frames, batch.delay, Interleaving(pieces=batch.pieces, chunks=batch.chunks))
    best = logits[:, :-1, 4:].argmax(-1) + 4
    fed = scheduled_sampling(batch.pieces, logits, 0.3)
    changed = fed != batch.pieces
    assert not changed[batch.pieces < 0].any() and (fed[:, 1:] == best)[changed[:, 1:]].all()
    assert 0.1 < changed.sum() / (batch.pieces >= 0).sum() < 0.45


@pytest.mark.parametrize("task", ["distill", "ctc", "lm", "reallm"])
def test_every_task_is_what_the_loop_asks_for(task: str, corpus: Corpus, tmp_path: Path) -> None:
    changes = {}
    if task == "distill":
        run(tiny("ctc", corpus, tmp_path / "teacher", optim__steps=1))
        changes["distillation_teacher"] = str(tmp_path / "teacher")
    config, made = make(tiny(task, corpus, tmp_path / "run", **changes))
    assert isinstance(made, Task) and isinstance(made, torch.nn.Module) and made.config is config
    batch = next(iter(made.source.batches(0, 0, made.collate)))
    assert batch.num_targets > 0
    loss, _ = made(batch)
    assert loss.ndim == 0 and loss.dtype == torch.float32
    assert {"model.safetensors", "model.json"} <= made.artifacts().keys()


def test_missing_alignment_says_what_to_do(corpus: Corpus, out: Path) -> None:
    config, task = make(tiny("reallm", corpus, out, data__train=[str(corpus.plain)]))
    with pytest.raises(UserError, match="make the manifest with `reallm align`"):
        train(config, task)


def test_vocabulary_must_be_the_tokenizers(corpus: Corpus, out: Path) -> None:
    with pytest.raises(UserError, match=f"must be the tokenizer's, {corpus.vocab}"):
        make(tiny("reallm", corpus, out, model__vocab_size=7))
