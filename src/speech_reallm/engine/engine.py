"""The model at work: ONNX Runtime, with the state of every stream in numpy arrays that are passed in and out.

The engine knows samples, ids and tensors; words, times and events are the stream's business. Two kinds of decoder run
here (ARCHITECTURE.md, contract "Model folder"): wherever they differ, `frame_chunks` is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..modelfolder import ModelFolder
from ..onnx_session import OnnxSession
from ..tokenizer import START
from .ring import ring_slot

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
    """One stream's state. Every array has a batch dimension of 1; all but the last piece begin as zeros.

    encoder: the `state.*` inputs of the encoder's graph. decoder: all inputs of the decoder's, as the next micro-step
    takes them: `cache.k` and `cache.v`, the ring of its past, `position`, and so on.
    """

    delay: int
    encoder: dict[str, np.ndarray]
    decoder: dict[str, np.ndarray]
    # encoder calls so far; the first `lookahead_chunks` of them yield nothing
    calls: int = 0

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (*self.encoder.values(), *self.decoder.values()))


@dataclass(slots=True)
class _Row:
    """One stream within a batch of micro-steps: its embeddings that wait, and the chunk at hand.

    queue: for every chunk its embedding [D] and its frames [F, E], None where the decoder does not read them.
    """

    state: State
    queue: list[tuple[np.ndarray, np.ndarray | None]]
    first: int
    done: list[Decoded] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    @property
    def chunk(self) -> int:
        """Number of the embedding at hand, counted from the start of the stream."""
        return self.first + len(self.done)

    def close_chunk(self) -> bool:
        """The model said BLANK. Returns whether there is another embedding to go on with."""
        self.done.append(Decoded(self.chunk, tuple(self.ids), tuple(self.log_probs)))
        self.ids, self.log_probs = [], []
        return len(self.done) < len(self.queue)


class Engine:
    """Runs a model folder's `encoder.onnx` and `decoder.onnx` for any number of streams."""

    def __init__(self, folder: ModelFolder, threads: int = 1) -> None:
        """threads: CPU threads for one step. Raises UserError for graphs that do not fit the contract."""
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
            raise UserError(f"threads must be a whole number from 1 on, not {threads!r}")
        self.folder = folder
        self._encoder = OnnxSession(folder.file("encoder.onnx"), threads)
        self._decoder = OnnxSession(folder.file("decoder.onnx"), threads)
        self._encoder_outputs = [o.name for o in self._encoder.get_outputs()]
        self._encoder_state, self._decoder_state = self._check_graphs()

    def _check_graphs(self) -> tuple[Signature, Signature]:
        """What of a stream is kept from one call to the next: of the encoder's inputs, and of the decoder's."""
        folder, encoder = self.folder, self.folder.file("encoder.onnx")
        inputs, outputs = _signature(self._encoder, encoder)
        _expect(inputs, "audio", (folder.chunk_samples,), np.float32, encoder)
        _expect(inputs, "delay", (), np.int64, encoder)
        _expect(outputs, "embedding", (None,), np.float32, encoder)
        states = {n: spec for n, spec in inputs.items() if n not in ("audio", "delay")}
        for name, (shape, dtype) in states.items():
            if not name.startswith("state."):
                raise UserError(f"{encoder}: unexpected input {name}; export the model again")
            _expect(outputs, f"new_{name}", shape, dtype, encoder)

        kept = self._check_decoder(outputs)
        total = sum(_product(s) * np.dtype(d).itemsize for s, d in (*states.values(), *kept.values()))
        if total > MAX_STATE_BYTES:
            raise UserError(f"{folder.path}: unusable, a stream would need {total >> 20} MiB of state")
        return states, kept

    def _check_decoder(self, heard: Signature) -> Signature:
        """heard: the encoder's outputs. Returns the decoder's inputs."""
        folder, decoder = self.folder, self.folder.file("decoder.onnx")
        inputs, outputs = _signature(self._decoder, decoder)
        _expect(inputs, "embedding", heard["embedding"][0], np.float32, decoder)
        _expect(inputs, "piece", (), np.int64, decoder)
        _expect(inputs, "position", (), np.int64, decoder)
        cache = _expect(inputs, "cache.k", (None, folder.window - 1, None), np.float32, decoder)
        _expect(inputs, "cache.v", cache, np.float32, decoder)
        if folder.frame_chunks:
            for name in ("chunk", "waited"):
                _expect(inputs, name, (), np.int64, decoder)
            frames, width = _expect(inputs, "frames", (None, None), np.float32, decoder)
            each, rest = divmod(frames, folder.frame_chunks)
            if rest or not each:
                raise UserError(
                    f"{decoder}: frames holds {frames}, which {folder.frame_chunks} chunks (config.json) cannot "
                    "share evenly; export the model again"
                )
            _expect(heard, "frames", (each, width), np.float32, folder.file("encoder.onnx"))
        if len(inputs) != (8 if folder.frame_chunks else 5):
            raise UserError(f"{decoder}: not a decoder's inputs: {', '.join(inputs)}; export the model again")
        _expect(outputs, "log_probs", (folder.vocab_size,), np.float32, decoder)
        for name in ("new.k", "new.v"):
            _expect(outputs, name, (cache[0], cache[2]), np.float32, decoder)
        return inputs

    def new_state(self, delay: int | None = None) -> State:
        """The state of a stream at its start. Raises UserError for a delay that the model does not know."""
        delay = self.folder.default_delay if delay is None else delay
        if isinstance(delay, bool) or delay not in self.folder.delays:
            known = ", ".join(map(str, self.folder.delays))
            raise UserError(f"a label delay of {delay} chunks is not among this model's: {known}")
        state = State(int(delay), _zeros(self._encoder_state), _zeros(self._decoder_state))
        state.decoder["piece"][:] = START
        return state

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
            frames = out["frames"] if self.folder.frame_chunks else [None] * size
            for row, *heard in zip(rows[:size], out["embedding"], frames, strict=True):
                row.state.calls += 1
                if row.state.calls > lookahead:
                    row.queue.append(tuple(heard))
        _unstack(batch, states[:size], 0)
        return rows

    def _decode(self, rows: list[_Row]) -> None:
        """Micro-steps until every row has said BLANK to its last embedding; results go to `row.done`.

        A row that is done leaves the batch: the last row takes its place, so that those at work stay
        contiguous. States are copied into the batch once and then written in both places; a single stream's
        state is the batch, and never copied.
        """
        if not rows:
            return
        for row in rows:
            self._hear(row, row.state.decoder, 0)
        rows, size = list(rows), len(rows)
        alone, batch = size == 1, _stack([row.state.decoder for row in rows])
        blank, cap = self.folder.blank_id, self.folder.max_pieces_per_chunk
        while size:
            log_probs, new_keys, new_values = self._decoder.run(
                ["log_probs", "new.k", "new.v"], {name: array[:size] for name, array in batch.items()}
            )
            best = log_probs.argmax(axis=1)
            # backwards, so that the row that fills a gap has been dealt with
            for j in range(size - 1, -1, -1):
                row, symbol = rows[j], int(best[j])
                places = [(row.state.decoder, 0)] if alone else [(row.state.decoder, 0), (batch, j)]
                # what is written twice after one embedding is a line being read again and again: on to the next
                is_piece = symbol != blank and len(row.ids) < cap and symbol not in row.ids
                # an interleaving decoder remembers every micro-step; to a reading one waiting leaves no trace
                if is_piece or not self.folder.frame_chunks:
                    for place in places:
                        _remember(*place, new_keys[j], new_values[j])
                if is_piece:
                    for inputs, i in places:
                        inputs["piece"][i] = symbol
                        if self.folder.frame_chunks:
                            inputs["waited"][i] = 0
                    row.ids.append(symbol)
                    row.log_probs.append(float(log_probs[j, symbol]))
                elif row.close_chunk():
                    for place in places:
                        self._hear(row, *place)
                else:
                    size -= 1
                    if j < size:
                        rows[j] = rows[size]
                        for array in batch.values():
                            array[j] = array[size]

    def _hear(self, row: _Row, inputs: dict[str, np.ndarray], i: int) -> None:
        """Row i of the decoder's `inputs` goes on to the next embedding of `row`."""
        embedding, frames = row.queue[len(row.done)]
        inputs["embedding"][i] = embedding
        if self.folder.frame_chunks:
            inputs["chunk"][i] = row.chunk
            inputs["waited"][i] += 1
            first = row.chunk % self.folder.frame_chunks * len(frames)
            inputs["frames"][i, first : first + len(frames)] = frames
        else:
            # the embedding comes in a piece's place
            inputs["piece"][i] = -1


def _remember(inputs: dict[str, np.ndarray], i: int, key: np.ndarray, value: np.ndarray) -> None:
    """A micro-step's key and value [L, H*d] go into the ring of row i; `frames` are a reading decoder's."""
    slot = ring_slot(inputs["position"][i], inputs["cache.k"].shape[2], "frames" in inputs)
    inputs["cache.k"][i, :, slot] = key
    inputs["cache.v"][i, :, slot] = value
    inputs["position"][i] += 1


Signature = dict[str, tuple[tuple[int, ...], Any]]


def _signature(session: OnnxSession, path: Path) -> tuple[Signature, Signature]:
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


def _zeros(signature: Signature) -> dict[str, np.ndarray]:
    """For one stream."""
    return {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in signature.items()}


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
