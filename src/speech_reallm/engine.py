"""The model at work: ONNX Runtime, with the state of every stream in numpy arrays that are passed in and out.

The engine knows samples, ids and tensors; words, times and events are the stream's business.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .errors import UserError
from .modelfolder import ModelFolder

# state of one stream, all tensors together; a large pretrained decoder stays well below
MAX_STATE_BYTES = 1 << 30
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """What was said after one embedding: ids and their log-probabilities; none for BLANK alone."""

    index: int
    ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()


@dataclass(slots=True)
class State:
    """One stream's state. Every array has a batch dimension of 1; all begin as zeros.

    keys, values: [1, L, W, H*d], the ring of the decoder's past; position p lies in slot p % W.
    """

    delay: int
    encoder: dict[str, np.ndarray]
    keys: np.ndarray
    values: np.ndarray
    position: int = 0
    # encoder calls so far; the first `lookahead_chunks` of them yield nothing
    calls: int = 0

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.encoder.values()) + self.keys.nbytes + self.values.nbytes


@dataclass(slots=True)
class _Row:
    """One stream within a batch of micro-steps: its embeddings that wait, and the chunk at hand."""

    state: State
    queue: list[np.ndarray]
    first: int
    done: list[Decoded] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    def close_chunk(self) -> bool:
        """The model said BLANK. Returns whether there is another embedding to go on with."""
        self.done.append(Decoded(self.first + len(self.done), tuple(self.ids), tuple(self.log_probs)))
        self.ids, self.log_probs = [], []
        return len(self.done) < len(self.queue)


class Engine:
    """Runs a model folder's `encoder.onnx` and `decoder.onnx` for any number of streams."""

    def __init__(self, folder: ModelFolder, threads: int = 1) -> None:
        """threads: CPU threads for one step. Raises UserError for graphs that do not fit the contract."""
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
            raise UserError(f"threads must be a whole number from 1 on, not {threads!r}")
        self.folder = folder
        self._encoder = _session(folder.file("encoder.onnx"), threads)
        self._decoder = _session(folder.file("decoder.onnx"), threads)
        self._encoder_outputs = [o.name for o in self._encoder.get_outputs()]
        self._state_specs, self._cache_shape = self._check_graphs()

    def _check_graphs(self) -> tuple[dict[str, tuple[tuple[int, ...], Any]], tuple[int, ...]]:
        folder = self.folder
        encoder, decoder = folder.file("encoder.onnx"), folder.file("decoder.onnx")
        inputs, outputs = _signature(self._encoder, encoder)
        _expect(inputs, "audio", (folder.chunk_samples,), np.float32, encoder)
        _expect(inputs, "delay", (), np.int64, encoder)
        dim = _expect(outputs, "embedding", (None,), np.float32, encoder)[0]
        states = {n: spec for n, spec in inputs.items() if n not in ("audio", "delay")}
        for name, (shape, dtype) in states.items():
            if not name.startswith("state."):
                raise UserError(f"{encoder}: unexpected input {name}; export the model again")
            _expect(outputs, f"new_{name}", shape, dtype, encoder)

        inputs, outputs = _signature(self._decoder, decoder)
        _expect(inputs, "embedding", (dim,), np.float32, decoder)
        _expect(inputs, "piece", (), np.int64, decoder)
        _expect(inputs, "position", (), np.int64, decoder)
        cache = _expect(inputs, "cache.k", (None, folder.window - 1, None), np.float32, decoder)
        _expect(inputs, "cache.v", cache, np.float32, decoder)
        if len(inputs) != 5:
            raise UserError(f"{decoder}: not a decoder's inputs: {', '.join(inputs)}; export the model again")
        _expect(outputs, "log_probs", (folder.vocab_size,), np.float32, decoder)
        for name in ("new.k", "new.v"):
            _expect(outputs, name, (cache[0], cache[2]), np.float32, decoder)

        total = 2 * 4 * _product(cache) + sum(_product(s) * np.dtype(d).itemsize for s, d in states.values())
        if total > MAX_STATE_BYTES:
            raise UserError(f"{folder.path}: unusable, a stream would need {total >> 20} MiB of state")
        return states, cache

    def new_state(self, delay: int | None = None) -> State:
        """The state of a stream at its start. Raises UserError for a delay that the model does not know."""
        delay = self.folder.default_delay if delay is None else delay
        if isinstance(delay, bool) or delay not in self.folder.delays:
            known = ", ".join(map(str, self.folder.delays))
            raise UserError(f"a label delay of {delay} chunks is not among this model's: {known}")
        return State(
            delay=int(delay),
            encoder={n: np.zeros((1, *shape), dtype) for n, (shape, dtype) in self._state_specs.items()},
            keys=np.zeros((1, *self._cache_shape), np.float32),
            values=np.zeros((1, *self._cache_shape), np.float32),
        )

    def step(self, states: Sequence[State], audio: Sequence[np.ndarray]) -> list[list[Decoded]]:
        """Advance each stream by its own number of chunks, all in one batch.

        states: distinct, changed in place. audio: for each, float32 [chunks, S]; chunks may be 0.
        Returns for each stream what was said after each embedding that came out, in order.
        """
        ready = [i for i, chunks in enumerate(audio) if len(chunks)]
        # the longest first, so that those still busy are always the first rows of the batch
        ready.sort(key=lambda i: -len(audio[i]))
        results: list[list[Decoded]] = [[] for _ in states]
        if ready:
            rows = self._encode([states[i] for i in ready], [audio[i] for i in ready])
            self._decode([row for row in rows if row.queue])
            for i, row in zip(ready, rows, strict=True):
                results[i] = row.done
        return results

    def _encode(self, states: list[State], audio: list[np.ndarray]) -> list[_Row]:
        """audio: longest first. Advances the encoder states; returns rows with their embeddings waiting."""
        lookahead = self.folder.lookahead_chunks
        rows = [_Row(s, [], max(0, s.calls - lookahead)) for s in states]
        delays = np.array([s.delay for s in states], np.int64)
        batch = _stack([s.encoder for s in states])
        size = len(states)
        for k in range(len(audio[0])):
            busy = sum(len(chunks) > k for chunks in audio)
            if busy < size:
                _unstack(batch, states[busy:size], busy)
                batch = {name: array[:busy] for name, array in batch.items()}
                size = busy
            feed = dict(batch)
            feed["audio"] = np.stack([chunks[k] for chunks in audio[:size]]).astype(np.float32, copy=False)
            feed["delay"] = delays[:size]
            out = dict(zip(self._encoder_outputs, self._encoder.run(None, feed), strict=True))
            batch = {name: out[f"new_{name}"] for name in batch}
            for row, embedding in zip(rows[:size], out["embedding"], strict=True):
                row.state.calls += 1
                if row.state.calls > lookahead:
                    row.queue.append(embedding)
        _unstack(batch, states[:size], 0)
        return rows

    def _decode(self, rows: list[_Row]) -> None:
        """Micro-steps until every row has said BLANK to its last embedding; results go to `row.done`.

        A row that is done leaves the batch: the last row takes its place, so that those at work stay
        contiguous. Cache rows are copied into the batch once and then written in both places; a single
        stream is never copied.
        """
        if not rows:
            return
        rows, size = list(rows), len(rows)
        alone = size == 1
        keys = rows[0].state.keys if alone else np.concatenate([r.state.keys for r in rows])
        values = rows[0].state.values if alone else np.concatenate([r.state.values for r in rows])
        embedding = np.stack([r.queue[0] for r in rows])
        piece = np.full(size, -1, np.int64)
        position = np.array([r.state.position for r in rows], np.int64)
        slots, blank, cap = keys.shape[2], self.folder.blank_id, self.folder.max_pieces_per_chunk
        while size:
            log_probs, new_keys, new_values = self._decoder.run(
                ["log_probs", "new.k", "new.v"],
                {
                    "embedding": embedding[:size],
                    "piece": piece[:size],
                    "position": position[:size],
                    "cache.k": keys[:size],
                    "cache.v": values[:size],
                },
            )
            best = log_probs.argmax(axis=1)
            # backwards, so that the row that fills a gap has been dealt with
            for j in range(size - 1, -1, -1):
                row = rows[j]
                slot = row.state.position % slots
                keys[j, :, slot] = new_keys[j]
                values[j, :, slot] = new_values[j]
                if not alone:
                    row.state.keys[0, :, slot] = new_keys[j]
                    row.state.values[0, :, slot] = new_values[j]
                row.state.position += 1
                position[j] += 1
                symbol = int(best[j])
                if symbol != blank and len(row.ids) < cap:
                    piece[j] = symbol
                    row.ids.append(symbol)
                    row.log_probs.append(float(log_probs[j, symbol]))
                elif row.close_chunk():
                    piece[j] = -1
                    embedding[j] = row.queue[len(row.done)]
                else:
                    size -= 1
                    if j < size:
                        rows[j] = rows[size]
                        for array in (keys, values, embedding, piece, position):
                            array[j] = array[size]


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # waiting threads sleep: a live stream leaves the CPU idle most of the time
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as err:
        reason = " ".join(str(err).split())[:160]
        raise UserError(f"{path} cannot be loaded ({reason}); get the model again") from None


Signature = dict[str, tuple[tuple[int, ...], Any]]


def _signature(session: ort.InferenceSession, path: Path) -> tuple[Signature, Signature]:
    """Names, shapes without the batch dimension, and types of a graph's inputs and outputs.

    Outputs keep None for a dimension that the graph does not fix; inputs must fix all but the first.
    """
    both = []
    for nodes, fixed in ((session.get_inputs(), True), (session.get_outputs(), False)):
        signature = {}
        for node in nodes:
            shape = tuple(d if isinstance(d, int) else None for d in node.shape[1:])
            if node.type not in _DTYPES:
                raise UserError(f"{path}: {node.name} has the type {node.type}; export the model again")
            if not node.shape or (fixed and any(d is None or d < 0 for d in shape)):
                raise UserError(f"{path}: {node.name} has no fixed shape, {node.shape}; export it again")
            if isinstance(node.shape[0], int):
                raise UserError(f"{path}: {node.name} has no batch dimension, {node.shape}; export it again")
            signature[node.name] = (shape, _DTYPES[node.type])
        both.append(signature)
    return both[0], both[1]


def _expect(signature: Signature, name: str, shape: tuple, dtype: Any, path: Path) -> tuple[int, ...]:
    """The shape of `name`, which must agree with `shape` where that is not None (nor the graph's own)."""
    if name not in signature:
        raise UserError(f"{path} has no {name}; export the model again")
    found, kind = signature[name]
    agree = len(found) == len(shape) and all(
        a is None or b is None or a == b for a, b in zip(found, shape, strict=True)
    )
    if kind is not dtype or not agree:
        raise UserError(
            f"{path}: {name} is {np.dtype(kind).name} {list(found)} where config.json asks for "
            f"{np.dtype(dtype).name} {['any' if d is None else d for d in shape]}; export the model again"
        )
    return found


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for dimension in shape:
        total *= dimension
    return total


def _stack(states: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """States of several streams as one batch; that of a single stream as it is."""
    if len(states) == 1:
        return states[0]
    return {name: np.concatenate([s[name] for s in states]) for name in states[0]}


def _unstack(batch: dict[str, np.ndarray], states: list[State], first: int) -> None:
    """Rows of a batch, from `first` on, back to their streams.

    Copies: a view would keep the whole batch alive as long as its idlest stream.
    """
    for j, state in enumerate(states, start=first):
        rows = {name: array[j : j + 1] for name, array in batch.items()}
        state.encoder = {name: a if len(batch[name]) == 1 else a.copy() for name, a in rows.items()}
