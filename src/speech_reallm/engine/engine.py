"""Batches of streams through the ONNX graphs; the state of every stream is numpy arrays that are passed in and out.

The engine deals in samples, ids and tensors; words, times and events are the stream's business. What a step of the
decoder is fed depends on its kind, which only step_decoder.py asks for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import UserError
from ..modelfolder import ModelFolder
from ..onnx_session import OnnxSession
from ..tokenizer import START
from .graphs import Signature, check_encoder, signature, state_bytes, zeros
from .rules import DecodingRules
from .step_decoder import step_decoder

# state of one stream, all tensors together; a large pretrained decoder stays well below
MAX_STATE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Decoded:
    """What was emitted after one embedding: ids and their log-probabilities; none for BLANK alone."""

    index: int
    ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()


@dataclass(slots=True)
class StreamState:
    """One stream's state. Every array has a batch dimension of 1; all but the last piece begin as zeros.

    encoder: the `state.*` inputs of the encoder's graph. decoder: all inputs of the decoder's, as the next step takes
    them: `cache.k` and `cache.v`, the ring of its past, `position`, and so on.
    """

    delay: int
    encoder: dict[str, np.ndarray]
    decoder: dict[str, np.ndarray]
    # encoder calls so far; the first `lookahead_chunks` of them yield nothing
    calls: int = 0

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (*self.encoder.values(), *self.decoder.values()))


@dataclass(frozen=True, slots=True)
class _Encoder:
    """A graph of the encoder, the names of its outputs, and what of a stream it keeps."""

    session: OnnxSession
    outputs: list[str]
    state: Signature


@dataclass(slots=True)
class _Row:
    """One stream within a batch of decoder steps: its embeddings that are still to be decoded, and the current chunk.

    queue: for every chunk its embedding [D] and its frames [F, E], None where the encoder does not give them.
    """

    state: StreamState
    queue: list[tuple[np.ndarray, np.ndarray | None]]
    first: int
    done: list[Decoded] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    @property
    def chunk(self) -> int:
        """Index of the current embedding, counted from the start of the stream."""
        return self.first + len(self.done)

    def close_chunk(self) -> bool:
        """BLANK was emitted. Returns whether there is another embedding to go on with."""
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
        self._steps = step_decoder(folder)
        self._rules = DecodingRules(folder.blank_id, folder.max_pieces_per_chunk)
        self._threads = threads
        decoder = folder.file("decoder.onnx")
        self._decoder = OnnxSession(decoder, threads)
        self._decoder_state, self._decoder_outputs = signature(self._decoder, decoder)
        self._lock = threading.Lock()
        self._encoders: dict[str, _Encoder] = {}
        self._encoder_of = {delay: name for name, delays in folder.encoders for delay in delays}
        self._encoder(folder.default_delay)

    def _encoder(self, delay: int) -> _Encoder:
        """The encoder for a label delay; loaded, and checked, when it is first asked for. Raises UserError."""
        name = self._encoder_of[delay]
        with self._lock:
            if name not in self._encoders:
                path = self.folder.file(name)
                session = OnnxSession(path, self._threads)
                inputs, outputs = signature(session, path)
                state = check_encoder(inputs, outputs, self.folder.chunk_samples, path)
                self._steps.check(self._decoder_state, self._decoder_outputs, outputs)
                total = state_bytes(state, self._decoder_state)
                if total > MAX_STATE_BYTES:
                    raise UserError(
                        f"{self.folder.path}: unusable, a stream would need {total >> 20} MiB of state"
                    )
                self._encoders[name] = _Encoder(session, list(outputs), state)
            return self._encoders[name]

    def new_state(self, delay: int | None = None) -> StreamState:
        """The state of a stream at its start. Raises UserError for a label delay that the model was not trained for."""
        delay = self.folder.default_delay if delay is None else delay
        if isinstance(delay, bool) or delay not in self.folder.delays:
            known = ", ".join(map(str, self.folder.delays))
            raise UserError(f"a label delay of {delay} chunks is not among this model's: {known}")
        encoder = self._encoder(int(delay))
        state = StreamState(int(delay), zeros(encoder.state), zeros(self._decoder_state))
        state.decoder["piece"][:] = START
        return state

    def step(self, states: Sequence[StreamState], audio: Sequence[np.ndarray]) -> list[list[Decoded]]:
        """Advance each stream by its own number of chunks, all in one batch.

        states: distinct, changed in place. audio: for each, float32 [chunks, S]; chunks may be 0.
        Returns for each stream what was emitted after each embedding that came out, in order.
        """
        ready = [i for i, chunks in enumerate(audio) if len(chunks)]
        # the longest first, so that those still busy are always the first rows of the batch
        ready.sort(key=lambda i: -len(audio[i]))
        results: list[list[Decoded]] = [[] for _ in states]
        if ready:
            rows: dict[int, _Row] = {}
            for name in self._encoders:
                mine = [i for i in ready if self._encoder_of[states[i].delay] == name]
                if mine:
                    encoded = self._encode(name, [states[i] for i in mine], [audio[i] for i in mine])
                    rows |= zip(mine, encoded, strict=True)
            self._decode([rows[i] for i in ready if rows[i].queue])
            for i, row in rows.items():
                results[i] = row.done
        return results

    def _encode(self, name: str, states: list[StreamState], audio: list[np.ndarray]) -> list[_Row]:
        """Streams of one encoder; audio: longest first. Advances their states; returns rows with embeddings queued."""
        encoder = self._encoders[name]
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
            out = dict(zip(encoder.outputs, encoder.session.run(None, feed), strict=True))
            batch = {name: out[f"new_{name}"] for name in batch}
            frames = out.get("frames")
            for j, row in enumerate(rows[:size]):
                row.state.calls += 1
                if row.state.calls > lookahead:
                    row.queue.append((out["embedding"][j], None if frames is None else frames[j]))
        _unstack(batch, states[:size], 0)
        return rows

    def _decode(self, rows: list[_Row]) -> None:
        """Decoder steps until every row has emitted BLANK after its last embedding; results go to `row.done`.

        A row that is done leaves the batch: the last row takes its place, so that those at work stay
        contiguous. States are copied into the batch once and then written in both places; a single stream's
        state is the batch, and never copied.
        """
        if not rows:
            return
        for row in rows:
            self._next_chunk(row, row.state.decoder, 0)
        rows, size = list(rows), len(rows)
        alone, batch = size == 1, _stack([row.state.decoder for row in rows])
        while size:
            log_probs, new_keys, new_values = self._decoder.run(
                ["log_probs", "new.k", "new.v"], {name: array[:size] for name, array in batch.items()}
            )
            best = log_probs.argmax(axis=1)
            # backwards, so that the row that fills a gap has been dealt with
            for j in range(size - 1, -1, -1):
                row = rows[j]
                symbol = self._rules.choose(int(best[j]), row.ids)
                piece = None if symbol == self._rules.blank_id else symbol
                places = [(row.state.decoder, 0)] if alone else [(row.state.decoder, 0), (batch, j)]
                for inputs, i in places:
                    self._steps.commit(inputs, i, piece, new_keys[j], new_values[j])
                if piece is not None:
                    row.ids.append(piece)
                    row.log_probs.append(float(log_probs[j, piece]))
                elif row.close_chunk():
                    for inputs, i in places:
                        self._next_chunk(row, inputs, i)
                else:
                    size -= 1
                    if j < size:
                        rows[j] = rows[size]
                        for array in batch.values():
                            array[j] = array[size]

    def _next_chunk(self, row: _Row, inputs: dict[str, np.ndarray], i: int) -> None:
        """Row i of the decoder's `inputs` goes on to the next embedding of `row`."""
        embedding, frames = row.queue[len(row.done)]
        self._steps.next_chunk(inputs, i, row.chunk, embedding, frames)


def _stack(states: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """States of several streams as one batch; that of a single stream as it is."""
    if len(states) == 1:
        return states[0]
    return {name: np.concatenate([s[name] for s in states]) for name in states[0]}


def _unstack(batch: dict[str, np.ndarray], states: list[StreamState], first: int) -> None:
    """Rows of a batch, from `first` on, back to their streams.

    Copies: a view would keep the whole batch alive as long as its idlest stream.
    """
    for j, state in enumerate(states, start=first):
        rows = {name: array[j : j + 1] for name, array in batch.items()}
        state.encoder = {name: a if len(batch[name]) == 1 else a.copy() for name, a in rows.items()}
