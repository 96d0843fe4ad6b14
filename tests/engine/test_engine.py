"""The engine against a plain reading of the contract, one row at a time; batches; wrong folders.

All of it with both kinds of decoder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from fake_model import BLANK, CAP, FRAMES, SAMPLES, WINDOW, make_decoder, make_encoder, speech, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm import Recognizer
from speech_reallm.engine import Decoded, Engine
from speech_reallm.errors import UserError
from speech_reallm.modelfolder import FILES, find_model, open_folder

KINDS = {"interleaving": 0, "reading": 3}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def frame_chunks(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def model_folder(frame_chunks: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return write_model(tmp_path_factory.mktemp("models") / "fake", frame_chunks=frame_chunks)


@pytest.fixture(scope="module")
def engine(model_folder: Path) -> Engine:
    return Engine(open_folder(model_folder))


def chunks(count: int, seed: int = 0) -> np.ndarray:
    return speech(count * SAMPLES / 16000 + 1, seed)[: count * SAMPLES].reshape(count, SAMPLES)


def encoded(folder: Path, audio: np.ndarray, delay: int, lookahead: int) -> Iterator[dict[str, np.ndarray]]:
    """What the encoder says of every chunk, by the name of its output."""
    encoder = ort.InferenceSession(folder / "encoder.onnx")
    state = zeros(encoder, "state.")
    names = [o.name for o in encoder.get_outputs()]
    for call, chunk in enumerate(audio):
        feed = {"audio": chunk[None], "delay": np.array([delay]), **state}
        out = dict(zip(names, encoder.run(None, feed), strict=True))
        state = {name: out[f"new_{name}"] for name in state}
        if call >= lookahead:
            yield out


def zeros(graph: ort.InferenceSession, start: str) -> dict[str, np.ndarray]:
    inputs = [i for i in graph.get_inputs() if i.name.startswith(start)]
    return {i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in inputs}


def by_the_book(folder: Path, audio: np.ndarray, delay: int, lookahead: int = 2) -> list[list[int]]:
    """Greedy decoding of one stream as ARCHITECTURE.md words it; pieces after each embedding."""
    decoder = ort.InferenceSession(folder / "decoder.onnx")
    kind = read if json.loads((folder / "config.json").read_text())["frame_chunks"] else interleave
    return kind(decoder, encoded(folder, audio, delay, lookahead))


OUTPUTS = ["log_probs", "new.k", "new.v"]


def interleave(decoder: ort.InferenceSession, heard: Iterator[dict[str, np.ndarray]]) -> list[list[int]]:
    cache, position, result = zeros(decoder, "cache."), 0, []
    for out in heard:
        piece, pieces = -1, []
        while True:
            inputs = {"piece": np.array([piece]), "position": np.array([position])}
            log_probs, new_k, new_v = decoder.run(OUTPUTS, {"embedding": out["embedding"], **inputs, **cache})
            cache["cache.k"][:, :, position % (WINDOW - 1)] = new_k
            cache["cache.v"][:, :, position % (WINDOW - 1)] = new_v
            position += 1
            piece = int(log_probs.argmax())
            if piece == BLANK or len(pieces) == CAP or piece in pieces:
                break
            pieces.append(piece)
        result.append(pieces)
    return result


def read(decoder: ort.InferenceSession, heard: Iterator[dict[str, np.ndarray]]) -> list[list[int]]:
    cache, frames, written, result = zeros(decoder, "cache."), zeros(decoder, "frames"), [], []
    chunks, last = frames["frames"].shape[1] // FRAMES, -1
    for chunk, out in enumerate(heard):
        row = chunk % chunks * FRAMES
        frames["frames"][:, row : row + FRAMES] = out["frames"]
        pieces = []
        while len(pieces) < CAP:
            position = len(written)
            inputs = {"piece": [written[-1] if written else 1], "position": [position], "chunk": [chunk]}
            inputs["waited"] = [chunk - last]
            inputs = {name: np.array(value) for name, value in inputs.items()}
            log_probs, new_k, new_v = decoder.run(
                OUTPUTS, {"embedding": out["embedding"], **inputs, **frames, **cache}
            )
            piece = int(log_probs.argmax())
            if piece == BLANK or piece in pieces:
                break
            # the first is kept
            slot = 1 + (position - 1) % (WINDOW - 2) if position else 0
            cache["cache.k"][:, :, slot], cache["cache.v"][:, :, slot] = new_k, new_v
            written.append(piece)
            pieces.append(piece)
            last = chunk
        result.append(pieces)
    return result


def ids(decoded: list[Decoded]) -> list[list[int]]:
    return [list(d.ids) for d in decoded]


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_one_stream_is_decoded_by_the_book(engine: Engine, model_folder: Path, delay: int) -> None:
    audio = chunks(40)
    expected = by_the_book(model_folder, audio, delay)
    assert len(expected) == 38 and any(expected) and not all(expected)
    decoded = engine.step([engine.new_state(delay)], [audio])[0]
    assert ids(decoded) == expected
    assert [d.index for d in decoded] == list(range(38))
    state, piecemeal = engine.new_state(delay), []
    for chunk in audio:
        piecemeal += engine.step([state], [chunk[None]])[0]
    assert ids(piecemeal) == expected


def test_the_ring_wraps_around(engine: Engine) -> None:
    """That what is decoded above takes the ring more than twice around; that of the frames, even more often."""
    state = engine.new_state()
    engine.step([state], [chunks(40)])
    assert state.decoder["position"] > 2 * WINDOW


def test_to_a_reading_decoder_waiting_leaves_no_trace(engine: Engine, frame_chunks: int) -> None:
    state = engine.new_state()
    decoded = engine.step([state], [chunks(40)])[0]
    said = sum(len(d.ids) for d in decoded)
    assert state.decoder["position"] == (said if frame_chunks else said + 38)
    past = {"piece", "position", "cache.k", "cache.v"}
    waited = 0
    for chunk in chunks(40, seed=1):
        before = {name: array.copy() for name, array in state.decoder.items()}
        if not engine.step([state], [chunk[None]])[0][0].ids:
            changed = {name for name in past if not np.array_equal(state.decoder[name], before[name])}
            # an interleaving decoder's piece is none if the chunk before ended so, too
            assert changed - (set() if frame_chunks else {"piece"}) == (
                set() if frame_chunks else past - {"piece"}
            )
            waited += 1
    assert waited


def test_frames_lie_where_the_contract_says(model_folder: Path, engine: Engine, frame_chunks: int) -> None:
    if not frame_chunks:
        assert set(engine.new_state().decoder) == {"embedding", "piece", "position", "cache.k", "cache.v"}
        return
    states = [engine.new_state(), engine.new_state()]
    audio = [chunks(9, 0), chunks(7, 1)]
    engine.step(states, audio)
    for state, sound in zip(states, audio, strict=True):
        heard = [out["frames"][0] for out in encoded(model_folder, sound, 1, 2)]
        assert state.decoder["chunk"] == len(heard) - 1 == len(sound) - 3
        for c in range(len(heard) - frame_chunks, len(heard)):
            row = c % frame_chunks * FRAMES
            np.testing.assert_allclose(state.decoder["frames"][0, row : row + FRAMES], heard[c], atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(plan=st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=6))
def test_streams_out_of_step_are_as_each_alone(engine: Engine, plan: list[list[int]]) -> None:
    """plan: for every round, how many chunks each of five streams gets."""
    audio = [chunks(24, seed) for seed in range(5)]
    delays = [0, 1, 2, 1, 0]
    alone = [engine.step([engine.new_state(d)], [a])[0] for d, a in zip(delays, audio, strict=True)]
    states, used, results = [engine.new_state(d) for d in delays], [0] * 5, [[] for _ in range(5)]
    for counts in plan:
        parts = [a[u : u + c] for a, u, c in zip(audio, used, counts, strict=True)]
        for result, new in zip(results, engine.step(states, parts), strict=True):
            result += new
        used = [u + c for u, c in zip(used, counts, strict=True)]
    for result, single in zip(results, alone, strict=True):
        assert ids(result) == ids(single)[: len(result)]
        for a, b in zip(result, single, strict=False):
            assert a.index == b.index
            assert a.log_probs == b.log_probs
    assert [len(r) for r in results] == [max(0, u - 2) for u in used]


def test_state_never_grows(engine: Engine) -> None:
    states = [engine.new_state() for _ in range(3)]
    before = [s.nbytes for s in states]
    for _ in range(5):
        engine.step(states, [chunks(3, s) for s in range(3)])
    assert [s.nbytes for s in states] == before
    for state in states:
        # a view would keep the arrays of others alive
        assert all(a.base is None for a in (*state.encoder.values(), *state.decoder.values()))


def test_nothing_to_do(engine: Engine) -> None:
    none = np.zeros((0, SAMPLES), np.float32)
    assert engine.step([], []) == []
    assert engine.step([engine.new_state()], [none]) == [[]]


def test_pieces_per_chunk_are_capped_and_differ(tmp_path: Path, frame_chunks: int) -> None:
    folder = write_model(tmp_path / "chatty", blank_bias=-1000.0, frame_chunks=frame_chunks)
    engine = Engine(open_folder(folder))
    state = engine.new_state()
    decoded = engine.step([state], [chunks(80)])[0]
    lengths = [len(d.ids) for d in decoded]
    assert len(lengths) == 78 and min(lengths) > 0 and max(lengths) == CAP
    assert all(len(set(d.ids)) == len(d.ids) for d in decoded)
    # of an interleaving decoder the embedding and every piece, the last one too, have been fed
    assert state.decoder["position"] == sum(lengths) + (0 if frame_chunks else 78)
    assert ids(decoded) == by_the_book(folder, chunks(80), 1)


def test_no_look_ahead(tmp_path: Path, frame_chunks: int) -> None:
    folder = write_model(tmp_path / "causal", lookahead=0, frame_chunks=frame_chunks)
    engine = Engine(open_folder(folder))
    assert ids(engine.step([engine.new_state(0)], [chunks(9)])[0]) == by_the_book(folder, chunks(9), 0, 0)


def test_threads_change_nothing(engine: Engine, model_folder: Path) -> None:
    other = Engine(open_folder(model_folder), threads=2)
    audio = chunks(10)
    assert ids(other.step([other.new_state()], [audio])[0]) == ids(
        engine.step([engine.new_state()], [audio])[0]
    )
    for threads in (0, -1, 1.5, True, 10**6):
        with pytest.raises(UserError, match="threads"):
            Engine(open_folder(model_folder), threads=threads)


@pytest.mark.parametrize("delay", [3, -1, True, 0.5])
def test_unknown_delays_are_refused(engine: Engine, delay: int) -> None:
    with pytest.raises(UserError, match="delay"):
        engine.new_state(delay)


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        Recognizer.load(folder)
    assert "\n" not in str(caught.value)


def change(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize("name", [*FILES, "config.json"])
def test_missing_and_damaged_files(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    refused(folder, "damaged|not valid JSON")
    (folder / name).unlink()
    refused(folder, "missing|no config.json")


def test_no_such_model(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no model folder")
    refused(tmp_path, "config.json")
    if not (Path(find_model.__globals__["__file__"]).parent / "models" / "default" / "config.json").exists():
        with pytest.raises(UserError, match="no default model"):
            find_model("default")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": 4}, "format 4.*update"),
        ({"format": 1}, "format 1.*export the model again"),
        ({"format": None}, "export"),
        ({"sample_rate": 8000}, "sample_rate"),
        ({"chunk_ms": 100}, "chunk_ms"),
        ({"chunk_ms": "240"}, "chunk_ms"),
        ({"chunk_ms": 240}, "audio"),
        ({"lookahead_chunks": 10**9}, "lookahead_chunks"),
        ({"lookahead_chunks": -1}, "lookahead_chunks"),
        ({"delays": []}, "delays"),
        ({"delays": list(range(1000))}, "delays"),
        ({"delays": [10**12]}, "delays"),
        ({"default_delay": 7}, "default_delay"),
        ({"file_delay": 7}, "file_delay"),
        ({"encoders": {"encoder.onnx": [0, 1]}}, "encoders.*every one of delays"),
        ({"encoders": {"encoder.onnx": [0, 1, 2, 2]}}, "encoders.*every one of delays"),
        ({"encoders": {"encoder.onnx": [0, 1, 7]}}, "encoders"),
        ({"encoders": {"../encoder.onnx": [0, 1, 2]}}, "encoders"),
        ({"encoders": {"encoder.onnx": [0, 1], "encoder-wide.onnx": [2]}}, "encoder-wide.onnx is missing"),
        ({"file_blocks": 40}, "file_blocks"),
        ({"file_blocks": {"chunks": 40}}, "file_blocks"),
        ({"file_blocks": {"chunks": 0, "offset": 0}}, "file_blocks: chunks"),
        ({"file_blocks": {"chunks": 10**9, "offset": 0}}, "file_blocks: chunks"),
        ({"file_blocks": {"chunks": 4, "offset": 0}}, "encoder-block.onnx is missing"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"vocab_size": 51}, "log_probs"),
        ({"blank_id": 50}, "blank_id"),
        ({"window": 10**12}, "window"),
        ({"window": 25}, "cache.k"),
        ({"window": True}, "window"),
        ({"frame_chunks": -1}, "frame_chunks"),
        ({"frame_chunks": 257}, "frame_chunks"),
        ({"frame_chunks": True}, "frame_chunks"),
        ({"frame_chunks": None}, "frame_chunks"),
        ({"max_pieces_per_chunk": 10**9}, "max_pieces_per_chunk"),
        ({"decoder": "other"}, "decoder must be attention or transducer"),
        ({"decoder": ["transducer"]}, "decoder must be attention or transducer"),
        ({"decoder": "transducer"}, "not a transducer's inputs"),
        ({"name": 7}, "name"),
        ({"sha256": {}}, "sha256"),
        ({"sha256": None}, "sha256"),
    ],
)
def test_hostile_configurations_are_refused(folder: Path, fields: dict, words: str) -> None:
    change(folder, **fields)
    refused(folder, words)


def replace(folder: Path, name: str, data: bytes) -> None:
    """Put another file in place, and its checksum."""
    (folder / name).write_bytes(data)
    sums = json.loads((folder / "config.json").read_text())["sha256"]
    change(folder, sha256={**sums, name: hashlib.sha256(data).hexdigest()})


def test_files_that_are_not_what_they_claim(folder: Path, frame_chunks: int) -> None:
    good = (folder / "tokenizer.model").read_bytes()
    replace(folder, "tokenizer.model", b"\x80\x04pickle?")
    refused(folder, "SentencePiece")
    replace(folder, "tokenizer.model", good)
    replace(folder, "decoder.onnx", (folder / "encoder.onnx").read_bytes())
    refused(folder, "decoder.onnx")
    replace(folder, "decoder.onnx", b"nothing")
    refused(folder, "cannot be loaded")
    rng = np.random.default_rng(0)
    replace(folder, "decoder.onnx", make_decoder(rng, np.zeros(20, bool), 0.0, frame_chunks))
    refused(folder, "log_probs")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        # 6 frames: of 1, 2, 3 or 6 chunks
        (0, "not a decoder's inputs: .*chunk, waited, frames"),
        (1, r"encoder.onnx: frames is float32 \[2, 7\] where .* \[6, 7\]"),
        (2, r"encoder.onnx: frames is float32 \[2, 7\] where .* \[3, 7\]"),
        (4, "decoder.onnx: frames holds 6, which 4 chunks"),
        (7, "decoder.onnx: frames holds 6, which 7 chunks"),
    ],
)
def test_a_reading_decoder_of_other_frames_is_refused(tmp_path: Path, told: int, words: str) -> None:
    folder = write_model(tmp_path / "m", frame_chunks=3)
    change(folder, frame_chunks=told)
    refused(folder, words)


def test_a_decoder_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    change(folder, frame_chunks=3)
    refused(folder, "decoder.onnx has no chunk")
    folder = write_model(tmp_path / "r", frame_chunks=3)
    replace(folder, "encoder.onnx", make_encoder(np.random.default_rng(0), 2, SAMPLES))
    refused(folder, "encoder.onnx has no frames")


def test_a_stream_that_needs_too_much_memory_is_refused(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speech_reallm.engine.engine.MAX_STATE_BYTES", engine.new_state().nbytes - 1)
    refused(folder, "a stream would need .* of state")


def test_each_delay_has_its_encoder(model_folder: Path, tmp_path: Path) -> None:
    """Streams of both encoders at once give what each gives alone."""
    folder = tmp_path / "wide"
    shutil.copytree(model_folder, folder)
    wide = make_encoder(np.random.default_rng(7), 1, SAMPLES, frames_of(folder))
    (folder / "encoder-wide.onnx").write_bytes(wide)
    config = json.loads((folder / "config.json").read_text())
    config["encoders"] = {"encoder.onnx": [0, 1], "encoder-wide.onnx": [2]}
    config["sha256"]["encoder-wide.onnx"] = hashlib.sha256(wide).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))
    engine, audio = Engine(open_folder(folder)), chunks(12)
    alone = [engine.step([engine.new_state(delay)], [audio])[0] for delay in (1, 2)]
    assert [d.ids for d in alone[0]] == [
        d.ids for d in Engine(open_folder(model_folder)).step([engine.new_state(1)], [audio])[0]
    ]
    assert alone[0] != alone[1]
    states = [engine.new_state(delay) for delay in (2, 1)]
    assert engine.step(states, [audio, audio]) == alone[::-1]


def frames_of(folder: Path) -> int:
    return FRAMES if json.loads((folder / "config.json").read_text())["frame_chunks"] else 0
