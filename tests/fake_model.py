"""A tiny model folder that honours the contracts: random weights, but every bit of state matters.

The encoder has a look-ahead and a recurrence, the decoder attends to its ring cache with a dependence on
position, and if it reads, to the frames with a dependence on their age, so that a mistake with state,
positions or batching changes what comes out.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import onnx
import sentencepiece
from onnx import TensorProto, helper, numpy_helper

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "she sells sea shells by the sea shore",
    "how much wood would a woodchuck chuck",
    "it's a streaming recogniser and it writes while you speak",
    "we were there when they were talking about the weather",
]
CHUNK_MS = 120
SAMPLES = 16 * CHUNK_MS
DIM, LAYERS, WINDOW, CAP = 12, 2, 24, 4
# frames a chunk and their width, for reading decoders
FRAMES, WIDTH = 2, 7
DELAYS = (0, 1, 2)
BLANK = 3
# what silence adds to an embedding
QUIET = np.eye(1, DIM, dtype=np.float32)[0] * 10


def make_tokenizer(vocab_size: int = 50) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="unigram",
        control_symbols=["<blank>"],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
    )
    return model.getvalue()


class _Graph:
    """Collects the nodes of a graph; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: np.ndarray | list | float, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes) -> str:
        out = out or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def bytes(self, inputs: dict, outputs: dict) -> bytes:
        def infos(values: dict) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(n, t, ["batch", *s]) for n, (t, s) in values.items()]

        graph = helper.make_graph(self.nodes, "fake", infos(inputs), infos(outputs), self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        return model.SerializeToString()


F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def make_encoder(rng: np.random.Generator, lookahead: int, samples: int, frames: int = 0) -> bytes:
    """h' = tanh(h U + feature(chunk k - A) V + feature(chunk k) Z); the embedding is a projection of h'.

    frames: how many a chunk; they are projections of h', too. 0: the graph has none.
    """
    g = _Graph()
    hidden = 10
    basis = g.const(rng.standard_normal((samples, hidden)) * 0.3)
    noise = g.op("MatMul", "audio", basis)
    # the last feature is how quiet the chunk is: 1 for silence
    level = g.op("ReduceMean", g.op("Abs", "audio"), axes=[1], keepdims=1)
    quiet = g.op("Sub", g.const(1.0), g.op("Tanh", g.op("Mul", level, g.const(50.0))))
    features = hidden + 1
    feature = g.op("Concat", g.op("Tanh", noise), quiet, axis=1)
    inputs = {"audio": (F32, [samples]), "delay": (I64, []), "state.hidden": (F32, [hidden])}
    outputs = {"embedding": (F32, [DIM]), "new_state.hidden": (F32, [hidden])}
    if lookahead:
        # the features of the last A chunks, oldest first
        inputs["state.line"] = (F32, [lookahead, features])
        outputs["new_state.line"] = (F32, [lookahead, features])
        one = g.const([1], np.int64)
        line = g.op("Concat", "state.line", g.op("Unsqueeze", feature, one), axis=1)
        g.op("Slice", line, one, g.const([1 << 30], np.int64), one, out="new_state.line")
        delayed = g.op("Gather", line, g.const(0, np.int64), axis=1)
    else:
        delayed = feature

    def weighted(x: str, scale: float) -> str:
        size = hidden if x == "state.hidden" else features
        return g.op("MatMul", x, g.const(rng.standard_normal((size, hidden)) * scale))

    total = g.op("Add", weighted("state.hidden", 0.3), weighted(delayed, 0.5))
    new = g.op("Tanh", g.op("Add", total, weighted(feature, 0.3)), out="new_state.hidden")
    ends = [g.const([n], np.int64) for n in (hidden, features, 1)]
    last = g.op("Slice", delayed, *ends)
    embedding = g.op("MatMul", new, g.const(rng.standard_normal((hidden, DIM))))
    vectors = g.const(rng.standard_normal((max(DELAYS) + 1, DIM)) * 0.3)
    embedding = g.op("Add", embedding, g.op("Mul", last, g.const(QUIET)))
    g.op("Add", embedding, g.op("Gather", vectors, "delay"), out="embedding")
    if frames:
        flat = g.op("MatMul", new, g.const(rng.standard_normal((hidden, frames * WIDTH))))
        g.op("Reshape", flat, g.const([-1, frames, WIDTH], np.int64), out="frames")
        outputs["frames"] = (F32, [frames, WIDTH])
    return g.bytes(inputs, outputs)


def make_decoder(
    rng: np.random.Generator, starts: np.ndarray, blank_bias: float, frame_chunks: int = 0
) -> bytes:
    """Attention over the ring cache and the token itself, twice; position enters keys and queries.

    starts [V]: which pieces start a word; they are made likelier. frame_chunks: 0 for an interleaving
    decoder; a reading one also attends to the frames of so many chunks, the older the less.
    """
    g, vocab_size = _Graph(), len(starts)
    slots = WINDOW - 1
    minus_one, zero, one, two = (g.const([n], np.int64) for n in (-1, 0, 1, 2))
    table = g.const(rng.standard_normal((vocab_size, DIM)) * 0.7)
    if frame_chunks:
        x = g.op("Add", "embedding", g.op("Gather", table, "piece"))
        wait = g.op("Unsqueeze", g.op("Cast", "waited", to=F32), minus_one)
        x = g.op("Add", x, g.op("Mul", g.op("Tanh", wait), g.const(rng.standard_normal((1, DIM)) * 0.1)))
    else:
        safe = g.op("Max", "piece", g.const(0, np.int64))
        is_embedding = g.op("Unsqueeze", g.op("Less", "piece", g.const(0, np.int64)), minus_one)
        x = g.op("Where", is_embedding, "embedding", g.op("Gather", table, safe))
    # phases as rotary positions have them, here simply added
    place = g.op("Unsqueeze", g.op("Cast", "position", to=F32), minus_one)
    phase = g.op("Sin", g.op("Mul", place, g.const(rng.random((1, DIM)))))
    x = g.op("Add", x, g.op("Mul", phase, g.const(0.3)))
    valid = g.op("Less", g.const(np.arange(slots)[None], np.int64), g.op("Unsqueeze", "position", minus_one))
    mask = g.op("Where", valid, g.const(0.0), g.const(-1e9))
    own = g.op("Mul", g.op("Slice", mask, zero, one, one), g.const(0.0))
    mask = g.op("Concat", mask, own, axis=1)
    if frame_chunks:
        now = g.op("Unsqueeze", "chunk", minus_one)
        slot = g.const(np.arange(frame_chunks * FRAMES)[None] // FRAMES, np.int64)
        age = g.op("Mod", g.op("Sub", now, slot), g.const(frame_chunks, np.int64))
        heard = g.op("LessOrEqual", slot, now)
        fade = g.op("Mul", g.op("Cast", age, to=F32), g.const(-0.5))
        fade = g.op("Where", heard, fade, g.const(-1e9))

    def weight(*shape: int) -> str:
        return g.const(rng.standard_normal(shape) * 0.3)

    def attend(query: str, keys: str, values: str, bias: str) -> str:
        """query [B, D], keys and values [B, T, D], bias [B, T] -> [B, D]"""
        scores = g.op("Squeeze", g.op("MatMul", keys, g.op("Unsqueeze", query, two)), two)
        weights = g.op("Softmax", g.op("Add", scores, bias), axis=1)
        return g.op("Squeeze", g.op("MatMul", g.op("Unsqueeze", weights, one), values), one)

    new_keys, new_values = [], []
    for layer in range(LAYERS):
        q, k, v = (g.op("MatMul", x, weight(DIM, DIM)) for _ in range(3))
        index = g.const(layer, np.int64)
        old_k, old_v = (g.op("Gather", f"cache.{n}", index, axis=1) for n in "kv")
        keys = g.op("Concat", old_k, g.op("Unsqueeze", k, one), axis=1)
        values = g.op("Concat", old_v, g.op("Unsqueeze", v, one), axis=1)
        x = g.op("Add", x, attend(q, keys, values, mask))
        if frame_chunks:
            seen = attend(g.op("MatMul", x, weight(DIM, WIDTH)), "frames", "frames", fade)
            x = g.op("Add", x, g.op("MatMul", seen, weight(WIDTH, DIM)))
        new_keys.append(g.op("Unsqueeze", k, one))
        new_values.append(g.op("Unsqueeze", v, one))
    g.op("Concat", *new_keys, axis=1, out="new.k")
    g.op("Concat", *new_values, axis=1, out="new.v")
    bias = 1.0 * starts
    bias[BLANK] = blank_bias
    bias[:3] = -1e4
    output = rng.standard_normal((DIM, vocab_size)) * 0.3
    # silence calls for BLANK
    output[:, BLANK] += QUIET / 8
    logits = g.op("MatMul", x, g.const(output))
    g.op("LogSoftmax", g.op("Add", logits, g.const(bias)), axis=1, out="log_probs")
    cache = (F32, [LAYERS, slots, DIM])
    inputs = {"embedding": (F32, [DIM]), "piece": (I64, []), "position": (I64, [])}
    if frame_chunks:
        inputs |= {"chunk": (I64, []), "waited": (I64, []), "frames": (F32, [frame_chunks * FRAMES, WIDTH])}
    new = (F32, [LAYERS, DIM])
    return g.bytes(
        {**inputs, "cache.k": cache, "cache.v": cache},
        {"log_probs": (F32, [vocab_size]), "new.k": new, "new.v": new},
    )


def write_model(
    folder: Path,
    *,
    seed: int = 0,
    lookahead: int = 2,
    blank_bias: float = 5.0,
    chunk_ms: int = CHUNK_MS,
    frame_chunks: int = 0,
    **config,
) -> Path:
    """Write a model folder; `config` overrides fields of config.json.

    frame_chunks: 0 for an interleaving decoder, else that of a reading one.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "tokenizer.model": make_tokenizer(),
        # no tensors: the graphs hold their own weights
        "model.safetensors": b"\x02\0\0\0\0\0\0\0{}",
        "encoder.onnx": make_encoder(rng, lookahead, 16 * chunk_ms, FRAMES if frame_chunks else 0),
    }
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=files["tokenizer.model"])
    vocab_size = tokenizer.GetPieceSize()
    starts = np.array([tokenizer.IdToPiece(i).startswith("\u2581") for i in range(vocab_size)])
    files["decoder.onnx"] = make_decoder(rng, starts, blank_bias, frame_chunks)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    fields = {
        "format": 2,
        "name": "fake",
        "language": "en",
        "sample_rate": 16000,
        "chunk_ms": chunk_ms,
        "lookahead_chunks": lookahead,
        "delays": list(DELAYS),
        "default_delay": 1,
        "vocab_size": vocab_size,
        "blank_id": BLANK,
        "window": WINDOW,
        "frame_chunks": frame_chunks,
        "max_pieces_per_chunk": CAP,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "model": {},
    }
    (folder / "config.json").write_text(json.dumps({**fields, **config}))
    return folder


def speech(seconds: float, seed: int = 0, rate: int = 16000) -> np.ndarray:
    """Noise whose loudness comes and goes: enough for a random model to say something."""
    rng = np.random.default_rng(seed)
    n = int(seconds * rate)
    envelope = np.sin(np.arange(n) / rate * 2.1 + seed) ** 2
    return (0.3 * envelope * rng.standard_normal(n)).clip(-1, 1).astype(np.float32)
