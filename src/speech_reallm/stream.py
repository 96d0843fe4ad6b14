"""A stream: PCM in, events out. Several streams can be stepped as one batch."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from .audio import SAMPLE_RATE, Resampler, to_channels
from .channels import Mixer
from .endpoint import Decision, Endpointer
from .engine import Decoded, Engine, StreamState
from .errors import UserError
from .events import (
    Endpoint,
    EndpointProposed,
    EndpointRetracted,
    Event,
    Final,
    Partial,
    SpeechStarted,
    Transcript,
)
from .numbers import NumberForm
from .options import StreamOptions
from .punctuation import is_spoken
from .segment import Segment
from .tokenizer import Tokenizer

# chunks that one stream contributes to a batch at most, so that catching up takes bounded memory
MAX_CHUNKS = 32

PCM = np.ndarray | bytes | bytearray | memoryview


class Stream:
    """One speaker, one connection. Made by `Recognizer.stream`.

    An endless stream takes constant memory: state is of fixed size, and finished segments are kept for
    `history` seconds only.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        sample_rate: int = SAMPLE_RATE,
        options: StreamOptions | None = None,
        in_blocks: bool = False,
    ) -> None:
        """See `Recognizer.stream`. in_blocks: the audio is encoded in the model's `file_blocks`."""
        folder, options = engine.folder, options or StreamOptions()
        self.sample_rate = sample_rate
        self._engine, self._tokenizer = engine, tokenizer
        self._lookahead, self._samples = folder.lookahead_chunks, folder.chunk_samples
        self._chunk_seconds = folder.chunk_seconds
        self._max_segment, self._history_seconds = options.max_segment, options.history
        self._with_turn_events = options.turn_events
        self._number_form = options.numbers
        self._in_blocks = in_blocks
        self._hotwords, self.hotwords_strength = tuple(options.hotwords), options.hotwords_strength
        self._state: StreamState | None = self._new_state(options.delay)
        self.delay = self._state.delay
        self._endpointer = self._new_endpointer()
        self.endpoint_silence = options.endpoint_silence
        self._start()

    def _new_state(self, delay: int | None) -> StreamState:
        state = self._engine.new_state(delay, self._in_blocks)
        self._engine.prefer(state, self._tokenizer, self._hotwords, self.hotwords_strength)
        return state

    def _new_endpointer(self, silence: float | None = None) -> Endpointer:
        return Endpointer(silence, self._chunk_seconds, self._lookahead, self.delay)

    def _start(self) -> None:
        self._received = 0
        self._mixer: Mixer | None = None
        self._ended = False
        self._last_end = 0.0
        self._history: deque[Final] = deque()
        self._transcript: Transcript | None = None
        self.compute_seconds = 0.0
        self._start_audio()

    def _start_audio(self) -> None:
        """What comes next is the first audio that the model receives."""
        # seconds of the stream before that
        self._offset = self.duration
        self._resampler = Resampler(self.sample_rate)
        self._buffer: list[np.ndarray] = []
        self._buffered = 0
        # samples since `_offset`, at the model's rate
        self._resampled = 0
        # is the turn being ended, though the stream is not?
        self._pausing = False
        self._chunks_of_audio: int | None = None
        self._segment = self._new_segment()
        self._endpointer.restart()

    def _new_segment(self) -> Segment:
        self._numbers = NumberForm(self._number_form) if self._number_form else None
        return Segment(self._tokenizer, self._chunk_seconds, self._last_end, self._offset)

    @property
    def endpoint_silence(self) -> float | None:
        """Seconds of silence that end a turn, None for never; may be set while the stream runs."""
        return self._endpointer.silence

    @endpoint_silence.setter
    def endpoint_silence(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise UserError("endpoint_silence: seconds of silence, more than 0, or None for no endpoints")
        self._endpointer.silence = seconds if seconds is not None and math.isfinite(seconds) else None

    @property
    def hotwords(self) -> tuple[str, ...]:
        """Terms that are preferred; `set_hotwords` changes them while the stream runs."""
        return self._hotwords

    def set_hotwords(self, terms: Sequence[str], strength: float | None = None) -> None:
        """Prefer other terms in what is recognised from now on.

        strength: see `StreamOptions`; None: as before. Raises UserError for what is no list of terms, and too many.
        """
        strength = self.hotwords_strength if strength is None else strength
        options = StreamOptions(hotwords=terms, hotwords_strength=strength)
        self._hotwords, self.hotwords_strength = tuple(options.hotwords), options.hotwords_strength
        if self._state is not None:
            self._engine.prefer(self._state, self._tokenizer, self._hotwords, self.hotwords_strength)

    @property
    def duration(self) -> float:
        """Seconds of audio fed so far."""
        return self._received / self.sample_rate

    @property
    def missing(self) -> int:
        """Samples, at the stream's own rate, until it has a whole chunk to recognise; 0 if it has one.

        An estimate where audio is resampled: the filter holds back a little.
        """
        short = self._samples - self._buffered
        return math.ceil(short * self.sample_rate / SAMPLE_RATE) if short > 0 else 0

    def accept(self, pcm: PCM) -> list[Event]:
        """Feed PCM and recognise as much of it as makes whole chunks; returns what happened.

        pcm: float32 in [-1, 1] or int16, [n] or [n, channels]; or bytes of int16, mono. How the audio is
        cut makes no difference to the events. Raises UserError for other input and after `finish`.
        """
        self.feed(pcm)
        return step([self])[0]

    def feed(self, pcm: PCM) -> None:
        """Buffer PCM without recognising it; `Recognizer.step` does that for many streams at once."""
        if self._ended:
            raise UserError("the stream has ended; reset() starts it anew")
        if self._pausing:
            raise UserError("the turn is being ended; step the stream before it is fed again")
        samples = to_channels(pcm)
        started = time.perf_counter()
        if self._mixer is None or self._mixer.channels != samples.shape[1]:
            self._mixer = Mixer(self.sample_rate, samples.shape[1])
        self._received += len(samples)
        if self._state is None and len(samples):
            self._state = self._new_state(self.delay)
        self._put(self._resampler.push(self._mixer.push(samples)))
        self.compute_seconds += time.perf_counter() - started

    def end(self) -> None:
        """No more audio comes. What is left is recognised by the next step, or by `finish`."""
        if self._ended:
            return
        self._ended = True
        if not self._pausing:
            self._flush()

    def pause(self) -> list[Event]:
        """No audio comes for now, as from a muted microphone: finish the turn as silence would, and return its end.

        The stream goes on with the next audio; times go on where they stopped. Its state is released until then.
        """
        self.end_turn()
        return step([self])[0]

    def end_turn(self) -> None:
        """As `pause`, but the work is left to the next step, which must come before more audio."""
        if not self._ended and not self._pausing and self._state is not None:
            self._pausing = True
            self._flush()

    def _flush(self) -> None:
        """Pad the audio so that all of it is recognised."""
        self._put(self._resampler.push(np.zeros(0, np.float32), last=True))
        chunks = math.ceil(self._resampled / self._samples)
        self._chunks_of_audio = chunks
        if chunks:
            padding = chunks * self._samples - self._resampled
            flush = self._engine.flush_chunks(self.delay) * self._samples
            self._buffer.append(np.zeros(padding + flush, np.float32))
            self._buffered += padding + flush

    def finish(self) -> Transcript:
        """End the stream: the audio still inside is recognised, so that the last word is not lost.

        The transcript covers the whole stream, or the last `history` seconds of a longer one; its
        `events` are those not reported before. The stream's memory is released; `reset` starts it anew.
        """
        if self._transcript is None:
            self.end()
            events = tuple(step([self])[0])
            self._transcript = Transcript.of(
                list(self._history), duration=self.duration, seconds=self.compute_seconds, events=events
            )
        return self._transcript

    def reset(self) -> None:
        """Start anew, as if just made; anything not finished is dropped."""
        self._state = self._new_state(self.delay)
        self._endpointer = self._new_endpointer(self.endpoint_silence)
        self._start()

    def _put(self, samples: np.ndarray) -> None:
        if len(samples):
            self._buffer.append(samples)
            self._buffered += len(samples)
            self._resampled += len(samples)

    def _take(self) -> np.ndarray:
        """Whole chunks that are ready, [n <= MAX_CHUNKS, S]."""
        count = min(MAX_CHUNKS, self._buffered // self._samples)
        if not count:
            return np.zeros((0, self._samples), np.float32)
        audio = self._buffer[0] if len(self._buffer) == 1 else np.concatenate(self._buffer)
        used = count * self._samples
        self._buffered -= used
        rest = audio[used:]
        # a small rest is copied, lest it keep a large array alive; a large one would be copied too often
        self._buffer = [rest.copy() if len(rest) < used else rest] if len(rest) else []
        return audio[:used].reshape(count, self._samples)

    def _absorb(self, decoded: Decoded) -> list[Event]:
        """Turn what was written after one embedding into events."""
        emitted = self._offset + decoded.used * self._chunk_seconds
        if self._is_flushing:
            emitted = min(emitted, self._limit)
        # a piece after embedding c was trained to be one whose audio ends in chunk c - delay
        chunk = max(0, decoded.index - self.delay)
        events = self._turn_events(self._endpointer.advance(decoded.index))
        text, spoke = "", False
        for piece, log_prob in zip(decoded.ids, decoded.log_probs, strict=True):
            if (
                self._tokenizer.starts_word(piece)
                and (end := self._endpointer.ends_before(chunk)) is not None
            ):
                events += self._end_turn(text, emitted, end)
                text = ""
            if self._too_long(piece, chunk):
                events += self._close_segment(text, emitted)
                text = ""
            added = self._segment.add(piece, log_prob, chunk, emitted)
            text += added
            # punctuation is written while the speaker is silent; what adds no text begins a word or a letter
            if self._segment and (not added or is_spoken(added)):
                spoke = True
                if not self._endpointer.in_turn:
                    events += self._speech_started(chunk)
                self._endpointer.word(chunk)
        events += self._partial(text, emitted)
        # the silence that flushes the stream is not the speaker's
        flushing = self._chunks_of_audio is not None and decoded.index >= self._chunks_of_audio
        decision = self._endpointer.after(decoded.index, spoke, may_end=not flushing)
        if decision.confirmed is not None:
            events += self._end_turn("", emitted, decision.confirmed)
        return events + self._turn_events(decision)

    def _speech_started(self, chunk: int) -> list[Event]:
        if not self._with_turn_events:
            return []
        onset = self._endpointer.onset((chunk + 1) * self._chunk_seconds)
        start = self._segment.final(self._limit).start if onset is None else self._offset + onset
        return [SpeechStarted(max(self._last_end, start))]

    def _turn_events(self, decision: Decision) -> list[Event]:
        events: list[Event] = []
        if self._with_turn_events:
            if decision.retracted is not None:
                events.append(EndpointRetracted(self._offset + decision.retracted))
            if decision.proposed is not None:
                events.append(EndpointProposed(self._offset + decision.proposed))
        return events

    def _too_long(self, piece: int, chunk: int) -> bool:
        """Speech without a pause is cut at a word, or anywhere if there are no words to cut at."""
        seconds = self._segment.seconds(chunk)
        at_word = self._tokenizer.starts_word(piece)
        return seconds > self._max_segment and (at_word or seconds > 1.5 * self._max_segment)

    def _end_turn(self, text: str, emitted: float, end: float) -> list[Event]:
        """end: up to when there was silence, since `_offset`; the last chunk may be padded."""
        events = self._close_segment(text, emitted)
        return [*events, Endpoint(min(max(self._offset + end, self._last_end), self._limit))]

    def _close_segment(self, text: str, emitted: float) -> list[Event]:
        """text: what has been added since the last Partial."""
        text += self._segment.close()
        events = self._partial(text, emitted, last=True)
        if self._segment:
            final = self._segment.final(self._limit)
            if self._numbers is not None:
                final = self._numbers.final(final)
            events.append(final)
            self._last_end = final.end
            self._history.append(final)
            while self._history and self._history[0].end < final.end - self._history_seconds:
                self._history.popleft()
            if not self._history_seconds:
                self._history.clear()
        self._segment = self._new_segment()
        return events

    def _partial(self, text: str, emitted: float, last: bool = False) -> list[Event]:
        """text: what has been added to the segment. last: no more is."""
        if self._numbers is not None and self._segment and (text or last):
            text, words = self._numbers.grow(self._segment.words(self._limit), last)
            return [Partial(text, emitted, words)] if text else []
        return [Partial(text, emitted, self._segment.words_of(text, self._limit))] if text else []

    @property
    def _limit(self) -> float:
        """No word ends later: the seconds that were received, once no more of them are to come."""
        return self._offset + self._resampled / SAMPLE_RATE if self._is_flushing else math.inf

    @property
    def _is_flushing(self) -> bool:
        return self._ended or self._pausing

    def _close(self) -> list[Event]:
        """All audio has been recognised, that of an ended stream or of a turn that was ended."""
        self._state = None
        in_turn, limit = self._endpointer.in_turn, self._limit
        events = self._close_segment("", limit)
        self._buffer, self._buffered = [], 0
        if self._pausing and not self._ended:
            if in_turn:
                events.append(Endpoint(limit))
            self._start_audio()
        return events


def step(streams: Sequence[Stream]) -> list[list[Event]]:
    """Recognise whatever whole chunks the streams have buffered, in batches; events for each stream.

    All streams must come from the same Recognizer, and each may appear only once.
    """
    if len({id(s) for s in streams}) != len(streams):
        raise UserError("step: the same stream appears twice")
    if len({id(s._engine) for s in streams}) > 1:
        raise UserError("step: streams of different recognisers cannot share a batch")
    events: list[list[Event]] = [[] for _ in streams]
    while True:
        started = time.perf_counter()
        audio = [s._take() for s in streams]
        chunks = sum(map(len, audio))
        if not chunks:
            break
        ready = [i for i, a in enumerate(audio) if len(a)]
        states = [state for i in ready if (state := streams[i]._state) is not None]
        last = [streams[i]._is_flushing and streams[i]._buffered < streams[i]._samples for i in ready]
        results = streams[0]._engine.step(states, [audio[i] for i in ready], last)
        for i in ready:
            streams[i]._endpointer.receive(audio[i])
        for i, decoded in zip(ready, results, strict=True):
            for item in decoded:
                events[i] += streams[i]._absorb(item)
        seconds = time.perf_counter() - started
        for i in ready:
            streams[i].compute_seconds += seconds * len(audio[i]) / chunks
    for stream, new in zip(streams, events, strict=True):
        if stream._is_flushing and stream._state is not None:
            new += stream._close()
    return events
