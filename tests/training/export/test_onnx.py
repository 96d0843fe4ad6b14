"""ONNX equals torch, step by step: exactly in float, within bounds in int8."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from speech_reallm.errors import UserError
from speech_reallm.recognizer import Recognizer
from speech_reallm.training.checkpoint import save_folder
from speech_reallm.training.config import DecoderConfig, EncoderConfig, ModelConfig, to_dict
from speech_reallm.training.export.folder import export_folder, load_reallm
from speech_reallm.training.model.packing import pack, unpack
from speech_reallm.training.model.reallm import ReaLLM
from speech_reallm.training.tokenizers.from_text import train_tokenizer

VOCAB = 40
# large enough that matrices are packed
DIM = 96
# of encoders; the last is a waveform encoder with a decoder that reads its frames
KINDS = ["waveform", "conformer", "reading"]


def make_run(folder: Path, kind: str) -> Path:
    """A 'trained' run: random weights of a small model, and a tokenizer."""
    text = folder / "text.txt"
    words = "the quick brown fox jumps over a lazy dog while they pack my boxes with five dozen jugs or other things"
    words = words.split(" ")
    text.write_text(
        "\n".join(" ".join(words[i % len(words)] for i in range(k, 3 * k + 9, k + 1)) for k in range(99))
    )
    train_tokenizer([str(text)], VOCAB, folder / "tokenizer.model", threads=1)
    torch.manual_seed(0)
    reads = kind == "reading"
    decoder = DecoderConfig(
        layers=2,
        dim=DIM,
        heads=2,
        kv_heads=1,
        ffn=2 * DIM,
        window=20,
        mlp_bias=reads,
        frame_chunks=3 if reads else 0,
    )
    config = ModelConfig(
        encoder=EncoderConfig(
            kind="waveform" if reads else kind,
            layers=2,
            dim=DIM,
            heads=2,
            ffn=2 * DIM,
            left_chunks=2,
            **({"lookahead": (1,)} if kind == "conformer" else {"right_chunks": 1, "delayed_chunks": 1}),
        ),
        decoder=decoder,
        vocab_size=VOCAB,
        blank_bias=0.7 if reads else 0.0,
    )
    model = ReaLLM(config)
    for name, weight in model.named_parameters():
        # what is zero at first counts too
        if name.endswith((".age", "stacker.project.weight", "delay.weight", "wait.weight")):
            torch.nn.init.normal_(weight, std=0.2)
    save_folder(
        folder / "run",
        {
            "model.safetensors": dict(model.state_dict()),
            "model.json": to_dict(config),
            "tokenizer.model": (folder / "tokenizer.model").read_bytes(),
        },
    )
    return folder / "run"


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    run = make_run(folder, request.param)
    return {
        int8: export_folder(run, folder / f"int8-{int8}", name="tiny", int8=int8) for int8 in (False, True)
    }


def compare_encoder(folder: Path) -> float:
    """Largest relative error of the embeddings over 8 chunks of 3 streams."""
    model = load_reallm(folder)
    session = ort.InferenceSession(str(folder / "encoder.onnx"), providers=["CPUExecutionProvider"])
    torch.manual_seed(3)
    audio = torch.randn(3, 8 * model.config.chunk_samples) * torch.tensor([[0.3], [0.05], [0.005]])
    delay = torch.tensor([0, 1, 2])
    theirs = {n: v.numpy() for n, v in model.encoder.init_state(3).items()}
    state, error, size = model.encoder.init_state(3), 0.0, 0.0
    names = [o.name for o in session.get_outputs()]
    with torch.no_grad():
        for chunk in audio.split(model.config.chunk_samples, dim=1):
            frames, state = model.encoder.step(chunk, state, delay)
            expected = model.embed_speech(frames, delay)[:, 0]
            feed = {f"state.{n}": v for n, v in theirs.items()}
            out = dict(
                zip(
                    names,
                    session.run(None, {"audio": chunk.numpy(), "delay": delay.numpy(), **feed}),
                    strict=True,
                )
            )
            theirs = {n: out[f"new_state.{n}"] for n in theirs}
            error += float((torch.from_numpy(out["embedding"]) - expected).square().mean())
            size += float(expected.square().mean())
    return (error / size) ** 0.5


def compare_decoder(folder: Path) -> tuple[float, float]:
    """(largest difference of log probabilities, share of equal best symbols) over 40 micro-steps of 2 streams."""
    model = load_reallm(folder)
    session = ort.InferenceSession(str(folder / "decoder.onnx"), providers=["CPUExecutionProvider"])
    torch.manual_seed(4)
    state = model.init_state(2)
    keys, values = state.cache_k.numpy().copy(), state.cache_v.numpy().copy()
    ring, worst, same = keys.shape[2], 0.0, 0
    # one of them has been going on for long
    state.position += torch.tensor([0, 5000])
    with torch.no_grad():
        for t in range(40):
            embedding = torch.randn(2, DIM)
            none = 1 if model.reads else -1
            piece = torch.tensor([none if t % 3 else 5 + t % 20, 7 if t % 4 == 0 else none])
            heard = {}
            if model.reads:
                state.frames, state.chunk = torch.randn_like(state.frames), torch.tensor([t, t // 3])
                state.waited = torch.tensor([t, t % 3])
                heard = {name: getattr(state, name).numpy() for name in ("frames", "chunk", "waited")}
            expected, k, v = model.step(embedding, piece, state)
            state.cache_k[:, :, t % ring], state.cache_v[:, :, t % ring] = k, v
            state.position += 1
            got, new_k, new_v = session.run(
                None,
                {
                    "embedding": embedding.numpy(), "piece": piece.numpy(), "position": state.position.numpy() - 1,
                    "cache.k": keys, "cache.v": values, **heard,
                },
            )  # fmt: skip
            keys[:, :, t % ring], values[:, :, t % ring] = new_k, new_v
            worst = max(worst, float(np.abs(got - expected.numpy()).max()))
            same += int((got.argmax(-1) == expected.numpy().argmax(-1)).sum())
    return worst, same / 80


def test_onnx_equals_torch_in_float(exported):
    assert compare_encoder(exported[False]) < 1e-4
    worst, same = compare_decoder(exported[False])
    assert worst < 1e-3
    assert same == 1.0


def test_onnx_equals_torch_in_int8_within_bounds(exported):
    assert compare_encoder(exported[True]) < 0.1
    worst, same = compare_decoder(exported[True])
    assert worst < 0.5
    assert same >= 0.9


@pytest.mark.parametrize("int8", [False, True])
def test_in_onnx_too_a_batch_of_streams_equals_the_streams_one_by_one(exported, int8):
    recognizer = Recognizer.load(exported[int8])
    rng = np.random.default_rng(1)
    audio = [rng.normal(0, 0.1, 16000 + 3000 * i).astype(np.float32) for i in range(3)]
    alone = []
    for samples in audio:
        stream = recognizer.stream(sample_rate=16000)
        stream.feed(samples)
        alone.append(stream.finish())
    streams = [recognizer.stream(sample_rate=16000) for _ in audio]
    for start in range(0, 25000, 5000):
        for stream, samples in zip(streams, audio, strict=True):
            stream.feed(samples[start : start + 5000])
        recognizer.step(streams)
    together = [stream.finish() for stream in streams]
    assert [t.text for t in together] == [t.text for t in alone]
    assert [w.confidence for t in together for w in t.words] == pytest.approx(
        [w.confidence for t in alone for w in t.words], abs=1e-3
    )


def test_an_exported_folder_recognises(exported):
    recognizer = Recognizer.load(exported[True])
    stream = recognizer.stream(sample_rate=16000)
    rng = np.random.default_rng(0)
    events = []
    for _ in range(8):
        events += stream.accept(rng.normal(0, 0.1, 3840).astype(np.float32))
    stream.finish()


def test_eight_bit_weights_come_back_within_half_a_step():
    torch.manual_seed(0)
    weights = {
        "a.weight": torch.randn(80, 130),
        "conv": torch.randn(40, 32, 9),
        "bias": torch.randn(7),
        "small": torch.randn(8, 5),
        "zero": torch.zeros(100, 100),
    }
    packed = pack(weights)
    assert packed["a.weight"].shape == (80, 3, 64) and packed["a.weight"].dtype == torch.uint8
    back = unpack(packed)
    assert set(back) == set(weights)
    assert torch.equal(back["bias"], weights["bias"]) and torch.equal(back["small"], weights["small"])
    for name in ("a.weight", "conv", "zero"):
        assert back[name].shape == weights[name].shape
        rows, got = weights[name].flatten(1), back[name].flatten(1)
        for block, come in zip(rows.split(64, 1), got.split(64, 1), strict=True):
            step = block.abs().amax(1, keepdim=True) / 127
            assert ((come - block).abs() <= step / 2 + 1e-6).all()
    again = unpack(pack(back))
    assert all(torch.allclose(again[k], back[k], atol=1e-6) for k in back)


def test_a_broken_run_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="not a trained recogniser"):
        load_reallm(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"vocab_size": 3}))
    with pytest.raises(UserError, match="not a trained recogniser"):
        load_reallm(tmp_path)
