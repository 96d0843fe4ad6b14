"""Streams through the ONNX graphs; the state of every stream is numpy arrays that are passed in and written in place.

The engine deals in samples, ids and tensors; words, times and events are the stream's business. What a step of the
decoder is fed depends on its kind, which only step_decoder.py asks for.

A call of a graph is for one stream. An encoder's block is large enough to keep a processor busy, so that a batch would
save little, and no stream has a part in the digits of another. With several threads, streams run side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..modelfolder import ModelFolder
from ..onnx_session import OnnxSession
from ..tokenizer import START, Tokenizer
from .blocks import LATE_CHUNKS, BlockEncoder, Window
from .graphs import Ring, Signature, check_encoder, signature, state_bytes, zeros
from .hotwords import NO_MATCH, HotWords, Matches
from .rules import DecodingRules
from .step_decoder import Arrays, step_decoder

# state of one stream, all tensors together; a large pretrained decoder stays well below
MAX_STATE_BYTES = 1 << 30
# lists of hot words that are kept for the next stream
KEPT_HOTWORDS = 8


@dataclass(frozen=True, slots=True)
class Decoded:
    """What was emitted after one embedding: ids and their log-probabilities; none for BLANK alone.

    used: chunks of audio that the embedding depends on, from the start of the stream.
    """

    index: int
    used: int
    ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()


@dataclass(slots=True)
class StreamState:
    """One stream's state. Every array has a batch dimension of 1; all but the last piece begin as zeros.

    encoder: the `state.*` and `ring.*` inputs of the encoder's graph. decoder: all inputs of the decoder's, as the next
    step takes them: the rings of its past, `position`, and so on. window: the audio of a recording that is encoded in
    large blocks, which has no encoder state.
    """

    delay: int
    encoder: dict[str, np.ndarray]
    decoder: dict[str, np.ndarray]
    window: Window | None = None
    # encoder calls so far; the first `lookahead_chunks` of them yield nothing
    calls: int = 0
    # terms that are preferred, and those that the last pieces have begun
    hotwords: HotWords | None = None
    matches: Matches = NO_MATCH

    @property
    def nbytes(self) -> int:
        waiting = self.window.nbytes if self.window else 0
        return waiting + sum(a.nbytes for a in (*self.encoder.values(), *self.decoder.values()))


@dataclass(frozen=True, slots=True)
class _Encoder:
    """A graph of the encoder, its outputs, what of a stream it keeps, and which of that are rings."""

    session: OnnxSession
    outputs: Signature
    state: Signature
    rings: dict[str, Ring]


# an embedding's index in the stream, and in what the decoder has had since its start; the chunks of audio that it
# depends on; and what the encoder gave
_Encoded = tuple[int, int, int, Arrays]


class Engine:
    """Runs a model folder's `encoder.onnx` and `decoder.onnx` for any number of streams."""

    def __init__(self, folder: ModelFolder, threads: int = 1) -> None:
        """threads: how many streams run side by side. Raises UserError for graphs that do not fit the contract."""
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
            raise UserError(f"threads must be a whole number from 1 on, not {threads!r}")
        self.folder = folder
        self._steps = step_decoder(folder)
        self._rules = DecodingRules(
            folder.blank_id, folder.max_pieces_per_chunk, folder.max_same_piece_per_chunk
        )
        self._threads = threads
        decoder = folder.file("decoder.onnx")
        self._decoder = OnnxSession(decoder, 1)
        self._decoder_state, self._decoder_outputs = signature(self._decoder, decoder)
        self._lock = threading.Lock()
        self._hotwords: dict[tuple[tuple[str, ...], float], HotWords] = {}
        self._encoders: dict[str, _Encoder] = {}
        self._blocks: BlockEncoder | None = None
        self._encoder_of = {delay: name for name, delays in folder.encoders for delay in delays}
        self._encoder(folder.default_delay)

    def _encoder(self, delay: int) -> _Encoder:
        """The encoder for a label delay; loaded, and checked, when it is first asked for. Raises UserError."""
        name = self._encoder_of[delay]
        with self._lock:
            if name not in self._encoders:
                path = self.folder.file(name)
                session = OnnxSession(path, 1)
                inputs, outputs = signature(session, path)
                state, rings = check_encoder(inputs, outputs, self.folder.chunk_samples, path)
                self._steps.check(self._decoder_state, self._decoder_outputs, outputs)
                total = state_bytes(state, self._decoder_state)
                if total > MAX_STATE_BYTES:
                    raise UserError(
                        f"{self.folder.path}: unusable, a stream would need {total >> 20} MiB of state"
                    )
                self._encoders[name] = _Encoder(session, outputs, state, rings)
            return self._encoders[name]

    def _block_encoder(self) -> BlockEncoder:
        """The encoder of recordings; loaded, and checked, when it is first asked for. Raises UserError."""
        outputs = self._encoder(self.folder.default_delay).outputs
        of_a_chunk = {n: spec for n, spec in outputs.items() if not n.startswith("new_")}
        with self._lock:
            if self._blocks is None:
                self._blocks = BlockEncoder(self.folder, of_a_chunk)
            return self._blocks

    def new_state(self, delay: int | None = None, in_blocks: bool = False) -> StreamState:
        """The state of a stream at its start.

        in_blocks: a recording, which is encoded in large blocks, and has the label delay of recordings; for models with
        `file_blocks`. Raises UserError for a label delay that the model was not trained for.
        """
        if in_blocks:
            assert self.folder.file_blocks is not None
            self._block_encoder()
            delay = self.folder.file_delay
            window = Window(self.folder.file_blocks, self.folder.chunk_samples, self.flush_chunks(delay))
            return StreamState(delay, {}, self._decoder_start(), window)
        delay = self.folder.default_delay if delay is None else delay
        if isinstance(delay, bool) or delay not in self.folder.delays:
            known = ", ".join(map(str, self.folder.delays))
            raise UserError(f"a label delay of {delay} chunks is not among this model's: {known}")
        encoder = self._encoder(int(delay))
        return StreamState(int(delay), zeros(encoder.state), self._decoder_start())

    def flush_chunks(self, delay: int) -> int:
        """Chunks of silence at the end of the audio, so that all of it is recognised at this label delay."""
        return self.folder.lookahead_chunks + delay + LATE_CHUNKS

    def _decoder_start(self) -> Arrays:
        """The decoder's inputs before the first embedding."""
        inputs = zeros(self._decoder_state)
        inputs["piece"][:] = START
        return inputs

    def prefer(
        self, state: StreamState, tokenizer: Tokenizer, terms: tuple[str, ...], strength: float
    ) -> None:
        """From its next chunk on, a stream prefers these terms, and no others; see HotWords."""
        # a term that has been begun is not gone on with: the other terms may not have it
        state.hotwords, state.matches = None, NO_MATCH
        if not terms or not strength:
            return
        key = (terms, strength)
        with self._lock:
            hotwords = self._hotwords.pop(key, None)
            if hotwords is None:
                hotwords = HotWords(tokenizer, terms, strength, self.folder.blank_id)
            # the last ones are kept: files and turns mostly have those of the one before
            self._hotwords[key] = hotwords
            if len(self._hotwords) > KEPT_HOTWORDS:
                del self._hotwords[next(iter(self._hotwords))]
        state.hotwords = hotwords

    def step(
        self, states: Sequence[StreamState], audio: Sequence[np.ndarray], last: Sequence[bool] | None = None
    ) -> list[list[Decoded]]:
        """Advance each stream by its own number of chunks.

        states: distinct, changed in place. audio: for each, float32 [chunks, S]; chunks may be 0. last: which streams
        get no more audio, so that a block that is not full is encoded, too.
        Returns for each stream what was emitted after each embedding that came out, in order.
        """
        # the longest first, so that the threads end together
        ready = sorted((i for i, chunks in enumerate(audio) if len(chunks)), key=lambda i: -len(audio[i]))
        results: list[list[Decoded]] = [[] for _ in states]

        def advance(i: int) -> None:
            ends = last is not None and last[i]
            encoded = self._encoded_blocks if states[i].window else self._encoded
            results[i] = [self._decode_chunk(states[i], *each) for each in encoded(states[i], audio[i], ends)]

        if self._threads == 1 or len(ready) < 2:
            for i in ready:
                advance(i)
        else:
            # threads are made for each call: a process that is forked has none of its parent's
            with ThreadPoolExecutor(min(self._threads, len(ready))) as pool:
                for _ in pool.map(advance, ready):
                    pass
        return results

    def _decode_chunk(
        self, state: StreamState, index: int, chunk: int, used: int, encoded: Arrays
    ) -> Decoded:
        """What is emitted after an embedding."""
        self._steps.next_chunk(state.decoder, chunk, encoded)
        return Decoded(index, used, *self._decode(state))

    def _encoded(self, state: StreamState, audio: np.ndarray, last: bool) -> Iterator[_Encoded]:
        """audio: float32 [chunks, S]."""
        for samples in audio:
            encoded = self._encode(state, samples)
            chunk = state.calls - 1 - self.folder.lookahead_chunks
            if chunk >= 0:
                yield chunk, chunk, state.calls, encoded

    def _encoded_blocks(self, state: StreamState, audio: np.ndarray, last: bool) -> Iterator[_Encoded]:
        """The same for a recording: there are none until a block is full, or the recording is over.

        Each block is decoded from the start.
        """
        assert state.window is not None
        state.window.add(audio)
        while (block := state.window.block(last, self.folder.lookahead_chunks)) is not None:
            state.decoder, state.matches = self._decoder_start(), NO_MATCH
            for number, encoded in enumerate(self._block_encoder().encode(block, state.delay)):
                # the silence after a block is no time of the recording
                shown = min(number, block.chunks - 1 + state.delay)
                yield block.start + shown, number, block.used, encoded

    def _encode(self, state: StreamState, samples: np.ndarray) -> Arrays:
        """One chunk [S] through the encoder, whose state advances. Returns its outputs."""
        encoder = self._encoders[self._encoder_of[state.delay]]
        feed = dict(state.encoder)
        feed["audio"] = samples[None].astype(np.float32, copy=False)
        feed["delay"] = np.array([state.delay])
        out = dict(zip(encoder.outputs, encoder.session.run(None, feed), strict=True))
        for name, array in state.encoder.items():
            place = encoder.rings.get(name)
            if place is None:
                array[...] = out[f"new_{name}"]
            else:
                place.write(array, out[f"new_{name}"], state.calls % place.slots)
        state.calls += 1
        return out

    def _decode(self, state: StreamState) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Decoder steps until BLANK: ids and their log-probabilities."""
        inputs, hotwords = state.decoder, state.hotwords
        ids: list[int] = []
        log_probs: list[float] = []
        names = list(self._decoder_outputs)
        while True:
            out = dict(zip(names, self._decoder.run(None, inputs), strict=True))
            answer = out["log_probs"][0]
            best = int(answer.argmax()) if hotwords is None else hotwords.best(answer, state.matches, ids)
            symbol = self._rules.choose(best, ids)
            piece = None if symbol == self._rules.blank_id else symbol
            self._steps.commit(inputs, piece, out)
            if piece is None:
                return tuple(ids), tuple(log_probs)
            ids.append(piece)
            log_probs.append(float(answer[piece]))
            if hotwords is not None:
                state.matches = hotwords.advance(state.matches, piece)
