"""ONNX equals torch, step by step: exactly in float, within bounds in int8."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import load_file

from speech_reallm.engine.blocks import Block, BlockEncoder
from speech_reallm.engine.graphs import Signature, signature
from speech_reallm.engine.ring import ring_slot, sink_ring_slot
from speech_reallm.errors import UserError
from speech_reallm.events import Partial
from speech_reallm.modelfolder import open_folder
from speech_reallm.onnx_session import OnnxSession
from speech_reallm.recognizer import Recognizer
from speech_reallm.training.checkpoint import save_folder
from speech_reallm.training.config import BlockConfig, DecoderConfig, EncoderConfig, ModelConfig, to_dict
from speech_reallm.training.export.folder import export_folder, load_reallm
from speech_reallm.training.model.encoders.block_attention import write_ring
from speech_reallm.training.model.encoders.block_encoder import BlockEncoder as TorchBlockEncoder
from speech_reallm.training.model.packing import pack, unpack
from speech_reallm.training.model.reallm import ReaLLM
from speech_reallm.training.tokenizers.from_text import train_tokenizer

VOCAB = 40
# the slot of a step in the ring, by the first piece: -1 of an interleaving decoder, <s> of a cross-attending one
SLOTS = {-1: ring_slot, 1: sink_ring_slot}
# large enough that matrices are packed
DIM = 96
# of encoders; the last two are waveform encoders with a cross-attending decoder, one of them with all that the default
# model has: one matrix for embedding and output layer, large enough to be packed, a high-pass filter,
# an encoder of recordings in blocks
KINDS = ["waveform", "conformer", "cross-attention", "tied"]


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
    tied = kind == "tied"
    attends = tied or kind == "cross-attention"
    decoder = DecoderConfig(
        layers=2,
        dim=DIM,
        heads=2,
        kv_heads=1,
        ffn=2 * DIM,
        window=20,
        mlp_bias=attends,
        cross_attention_chunks=3 if attends else 0,
        tie_embeddings=tied,
    )
    config = ModelConfig(
        encoder=EncoderConfig(
            kind="waveform" if attends else kind,
            layers=2,
            dim=DIM,
            heads=2,
            ffn=2 * DIM,
            left_chunks=2,
            high_pass=tied,
            **({"lookahead": (1,)} if kind == "conformer" else {"right_context": (1, 2)}),
        ),
        decoder=decoder,
        vocab_size=100 if tied else VOCAB,
        blank_bias=0.7 if attends else 0.0,
        file_blocks=BlockConfig(chunks=5) if tied else None,
    )
    model = ReaLLM(config)
    for name, weight in model.named_parameters():
        # what is zero at first counts too
        if name.endswith(
            (".chunk_age", "stacker.project.weight", "delay_embedding.weight", "since_piece.weight")
        ):
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


def run(session: ort.InferenceSession, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


def session_of(folder: Path, graph: str) -> ort.InferenceSession:
    return ort.InferenceSession(str(folder / f"{graph}.onnx"), providers=["CPUExecutionProvider"])


def written(ring: np.ndarray, new: np.ndarray, slot: int) -> np.ndarray:
    return write_ring(torch.from_numpy(ring), torch.from_numpy(new), torch.tensor([slot])).numpy()


def compare_encoder(folder: Path) -> float:
    """Largest relative error of embeddings and of what the decoder takes of frames, over 8 chunks of 3 streams."""
    model, session = load_reallm(folder), session_of(folder, "encoder")
    left = model.config.encoder.left_chunks
    torch.manual_seed(3)
    error, size = 0.0, 0.0
    for delay, level in enumerate((0.3, 0.05, 0.005)):
        audio, delay = torch.randn(1, 8 * model.config.chunk_samples) * level, torch.tensor([delay])
        state = model.encoder.init_state(1)
        theirs = {
            f"{'ring' if n in model.encoder.rings else 'state'}.{n}": v.numpy() for n, v in state.items()
        }
        for call, chunk in enumerate(audio.split(model.config.chunk_samples, dim=1)):
            with torch.no_grad():
                frames, state = model.encoder.step(chunk, state, delay)
                expected = {"embedding": model.embed_speech(frames, delay)[:, 0]}
                expected |= model.decoder.frame_outputs(frames)
            out = run(session, {"audio": chunk.numpy(), "delay": delay.numpy(), **theirs})
            for name, old in theirs.items():
                new = out[f"new_{name}"]
                theirs[name] = written(old, new, call % left) if name.startswith("ring.") else new
            for name, value in expected.items():
                error += float((torch.from_numpy(out[name]) - value).square().mean())
                size += float(value.square().mean())
    return (error / size) ** 0.5


def compare_blocks(folder: Path) -> float:
    """Largest relative error of what the encoder of blocks gives, over blocks of several sizes."""
    model, encoder = load_reallm(folder), BlockEncoder(open_folder(folder), chunk_outputs(folder))
    assert model.block_encoder is not None
    torch.manual_seed(3)
    error, size = 0.0, 0.0
    for count, outside, level in ((1, 0, 0.3), (7, 0, 0.05), (9, 2, 0.005)):
        audio = torch.randn(count, model.config.chunk_samples) * level
        audio[:outside] = 0
        inside = (torch.arange(count) >= outside).float()
        with torch.no_grad():
            frames = model.block_encoder.block(audio.reshape(1, -1), inside[None])
            expected = {"embedding": model.embed_speech(frames, torch.tensor([1]))[0]}
            expected |= model.decoder.frame_outputs(frames.unflatten(1, (count, -1))[0])
        found = encoder.encode(Block(audio.numpy(), inside.numpy(), count, 0, count, count), 1)
        for number, chunk in enumerate(found):
            for name, value in chunk.items():
                error = max(error, float(np.abs(value[0] - expected[name][number].numpy()).max()))
                size = max(size, float(expected[name].abs().max()))
    return error / size


def chunk_outputs(folder: Path) -> Signature:
    session = OnnxSession(folder / "encoder.onnx", 1)
    outputs = signature(session, folder / "encoder.onnx")[1]
    return {name: spec for name, spec in outputs.items() if not name.startswith("new_")}


def compare_decoder(folder: Path) -> tuple[float, float]:
    """(largest difference of log probabilities, share of equal best symbols) over 40 steps of 2 streams."""
    model, session = load_reallm(folder), session_of(folder, "decoder")
    torch.manual_seed(4)
    worst, same = 0.0, 0
    # one of them has been going on for long
    row = torch.tensor([0])
    for start in (0, 5000):
        state = model.decoder.init_state(1)
        state["position"] += start
        cache = {n: v.numpy().copy() for n, v in state.items() if n.startswith("cache.")}
        none = int(state["piece"])
        for t in range(40):
            frames = torch.randn(1, model.encoder.frames_per_chunk, DIM)
            with torch.no_grad():
                model.decoder.next_chunk(state, row, torch.tensor([t // 2]), torch.randn(1, DIM), frames)
                state["piece"] = torch.tensor([none if t % 3 else 5 + t % 20])
                expected, _ = model.decoder.step(state)
            feed = {n: v.numpy().copy() for n, v in state.items()} | cache
            position = int(state["position"])
            out = run(session, feed)
            with torch.no_grad():
                model.decoder.commit(state, row, torch.tensor([7]), model.decoder.step(state)[1])
            assert int(state["position"]) == position + 1
            slot = SLOTS[none](position, model.decoder.window - 1)
            cache = {n: written(old, out[f"new_{n}"], slot) for n, old in cache.items()}
            got = out["log_probs"]
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
    # to the last digit: no stream has a part in another's sums
    assert [w.confidence for t in together for w in t.words] == [w.confidence for t in alone for w in t.words]


def test_blocks_in_onnx_equal_those_in_torch(exported):
    if not open_folder(exported[False]).file_blocks:
        pytest.skip("no encoder of blocks")
    assert compare_blocks(exported[False]) < 1e-4
    assert compare_blocks(exported[True]) < 0.1


def test_a_recording_is_the_same_however_it_comes(exported):
    recognizer = Recognizer.load(exported[True])
    audio = np.random.default_rng(1).standard_normal(16000 * 6).astype(np.float32) * 0.1

    def run(cuts):
        stream = recognizer.stream(recording=True, history=math.inf)
        events = [e for part in np.split(audio, cuts) for e in stream.accept(part)]
        return [*events, *stream.finish().events]

    whole = run([])
    assert whole == run([100, 5000, 40000, 40001, 80000])
    if open_folder(exported[True]).file_blocks:
        # where to cut a block of at most 5 chunks of 240 ms is known with the sixth
        assert all(e.time >= 6 * 0.24 - 1e-9 for e in whole if isinstance(e, Partial))


def test_frames_of_blocks_hardly_depend_on_where_these_begin():
    config = EncoderConfig(kind="waveform", layers=2, dim=32, heads=2, ffn=64, high_pass=True)
    model = ModelConfig(encoder=config, decoder=DecoderConfig(), vocab_size=40, file_blocks=BlockConfig())
    torch.manual_seed(0)
    encoder = TorchBlockEncoder(model).eval()
    audio = torch.randn(1, 30 * model.chunk_samples) * 0.1
    later = audio[:, 5 * model.chunk_samples :]
    with torch.no_grad():
        whole = encoder.block(audio, torch.ones(1, 30)).unflatten(1, (30, -1))
        part = encoder.block(later, torch.ones(1, 25)).unflatten(1, (25, -1))
        # what lies outside has no effect
        inside = torch.cat((torch.zeros(1, 4), torch.ones(1, 25)), 1)
        padded = torch.cat((torch.zeros(1, 4 * model.chunk_samples), later), 1)
        shifted = encoder.block(padded, inside).unflatten(1, (29, -1))
    assert (shifted[:, :4] == 0).all()
    torch.testing.assert_close(shifted[:, 4:], part, atol=1e-4, rtol=0)
    assert (whole[:, 15:] - part[:, 10:]).square().mean() < 0.1 * whole.var()


def test_an_exported_folder_recognises(exported):
    recognizer = Recognizer.load(exported[True])
    stream = recognizer.stream(sample_rate=16000)
    rng = np.random.default_rng(0)
    events = []
    for _ in range(8):
        events += stream.accept(rng.normal(0, 0.1, 3840).astype(np.float32))
    stream.finish()


def test_eight_bit_weights_come_back_within_a_step():
    torch.manual_seed(0)
    weights = {
        "a.weight": torch.randn(80, 130),
        "conv": torch.randn(40, 32, 9),
        "bias": torch.randn(7),
        "small": torch.randn(8, 5),
        "zero": torch.zeros(100, 100),
    }
    packed = pack(weights)
    assert packed["a.weight"].shape == (80, 130) and packed["a.weight"].dtype == torch.int8
    back = unpack(packed)
    assert set(back) == set(weights)
    assert torch.equal(back["bias"], weights["bias"]) and torch.equal(back["small"], weights["small"])
    for name in ("a.weight", "conv", "zero"):
        assert back[name].shape == weights[name].shape
        rows, got = weights[name].flatten(1), back[name].flatten(1)
        # a few neighbours are clipped, others are within half a step, which is at most twice that of 8 bits
        step = rows.abs().amax(1, keepdim=True) / 127
        assert ((got - rows).abs() <= step + 1e-6).float().mean() > 0.97
        full = step.square() / 12 + 1e-12
        assert float(((got - rows).square() / full).mean()) < 2.3
    again = unpack(pack(back))
    assert all(torch.allclose(again[k], back[k], atol=1e-6) for k in back)


def test_weights_of_older_folders_in_blocks_of_64_are_read():
    blocks = torch.randint(0, 256, (3, 2, 64), dtype=torch.uint8)
    scale = torch.rand(3, 2)
    old = {"w": blocks, "w.scale": scale, "w.shape": torch.tensor([3, 100])}
    expected = ((blocks.float() - 128) * scale[..., None]).flatten(1)[:, :100]
    assert torch.equal(unpack(old)["w"], expected)


def test_integer_products_do_not_saturate(exported):
    """u8 times s8 loses what does not fit in 16 bits, on processors without VNNI: no two neighbours are so large."""
    weights = load_file(exported[True] / "model.safetensors")
    for graph in ("encoder", "decoder"):
        model = onnx.load(str(exported[True] / f"{graph}.onnx"), load_external_data=False)
        products = [n for n in model.graph.node if n.op_type == "DynamicQuantizeMatMul"]
        turned = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Transpose"}
        joined = {n.output[0]: n.input for n in model.graph.node if n.op_type == "Concat"}
        assert products
        for product in products:
            # without a zero point
            assert not any(product.input[3:4])
            for name in joined[turned[product.input[1]]]:
                stored = name.removesuffix(".by_tap")
                rows = weights[stored]
                assert rows.dtype == torch.int8
                if stored != name:  # a convolution: channels are neighbours
                    channels, taps = weights[f"{stored}.shape"].tolist()[1:]
                    rows = rows.unflatten(1, (channels, taps)).transpose(1, 2).flatten(1)
                first, second = rows.int().unflatten(1, (-1, 2)).unbind(-1)
                assert int((first + second).abs()[first * second > 0].max()) <= 128


@pytest.mark.parametrize("size", [(1, 288, 64), (30, 288, 96), (30, 577, 33)])
def test_products_with_packed_weights_are_exact(size):
    """Inputs at the ends of their range and the largest weights: whole sums to the last digit, on this processor."""
    count, depth, columns = size
    torch.manual_seed(0)
    sign = torch.ones(columns, depth)
    sign[: columns // 2] = torch.randn(columns // 2, depth).sign()
    matrix = (127 - 30 * torch.rand(columns, depth)) * sign
    packed = pack({"w": matrix.repeat(-(-8192 // matrix.numel()), 1)})
    whole, scale = packed["w"][:columns].numpy().T.copy(), packed["w.scale"][:columns].numpy()
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "scale"], ["y"], domain="com.microsoft")
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [count, depth])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [count, columns])],
        [numpy_helper.from_array(whole, "w"), numpy_helper.from_array(scale, "scale")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    # a range of 255, so that the scale of the inputs is one
    x = np.random.default_rng(0).choice(np.array([0.0, 254.0, 255.0], np.float32), (count, depth))
    x[:, 0], x[:, 1] = 0, 255
    expected = (x.astype(np.int64) @ whole.astype(np.int64)).astype(np.float32) * scale
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-4)


def test_eight_bit_weights_of_earlier_folders_are_read():
    matrix = torch.randint(0, 256, (3, 100), dtype=torch.uint8)
    scale = torch.rand(3)
    old = {"w": matrix, "w.scale": scale, "w.shape": torch.tensor([3, 10, 10])}
    expected = ((matrix.float() - 128) * scale[:, None]).reshape(3, 10, 10)
    assert torch.equal(unpack(old)["w"], expected)


def test_a_broken_run_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="not a trained recogniser"):
        load_reallm(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"vocab_size": 3}))
    with pytest.raises(UserError, match="not a trained recogniser"):
        load_reallm(tmp_path)
