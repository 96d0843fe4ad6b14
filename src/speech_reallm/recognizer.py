"""The public face of the runtime: load a model, open streams, transcribe files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .audio import SAMPLE_RATE
from .engine import Engine
from .errors import UserError
from .events import Event, Final, Transcript
from .media import open_audio
from .modelfolder import ModelFolder, open_folder
from .stream import Stream, step
from .tokenizer import Tokenizer


class Recognizer:
    """A loaded model. Safe to share between threads; a stream is not.

    rec = Recognizer.load()
    stream = rec.stream(sample_rate=48000)
    for event in stream.accept(pcm):
        ...
    transcript = stream.finish()
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, delay: int | None = None) -> None:
        """Use `Recognizer.load`. delay: label delay of streams and recordings, None for the model's own."""
        folder = engine.folder
        if len(tokenizer) > folder.vocab_size:
            raise UserError(
                f"{tokenizer.path} has {len(tokenizer)} pieces, the model only {folder.vocab_size}; "
                "get the model again"
            )
        self._engine, self._tokenizer = engine, tokenizer
        self.delay = engine.new_state(delay).delay
        # of recordings, where latency is of no concern
        self.file_delay = self.delay if delay is not None else folder.file_delay

    @classmethod
    def load(cls, model: str | Path | None = None, threads: int = 1, delay: int | None = None) -> Recognizer:
        """Load a model folder; None or "default" is the model inside the package.

        threads: streams computed at once, each on a thread. delay: label delay in chunks for streams and
        recordings that name none; None: the model's own, which for recordings is larger and makes fewer errors.
        Raises UserError for a folder that is missing, damaged or of another format.
        """
        folder = open_folder(model)
        return cls(Engine(folder, threads), Tokenizer(folder.file("tokenizer.model")), delay)

    @property
    def model(self) -> ModelFolder:
        """What config.json says: name, language, chunk_ms, lookahead_chunks, delays, ..."""
        return self._engine.folder

    @property
    def delays(self) -> tuple[int, ...]:
        """Label delays, in chunks, that streams may choose from: less delay, or fewer errors."""
        return self.model.delays

    def count_pieces(self, text: str) -> int:
        """How many pieces of the model's vocabulary a text is written with."""
        return len(self._tokenizer.encode(text))

    def stream(
        self,
        sample_rate: int = SAMPLE_RATE,
        *,
        delay: int | None = None,
        endpoint_silence: float | None = 0.8,
        max_segment: float = 30.0,
        history: float = 3600.0,
        turn_events: bool = False,
    ) -> Stream:
        """Open a stream.

        sample_rate: Hz, 8000 to 192000. delay: label delay in chunks, one of `delays`.
        endpoint_silence: a segment ends after so many seconds of silence, in the sound and in the text;
        None: never for silence. max_segment: nor does it get longer than about so many seconds.
        turn_events: SpeechStarted, EndpointProposed and EndpointRetracted are reported, too.
        history: seconds of finished segments that the stream keeps for the transcript that `finish`
        returns; `math.inf` for all, 0 for none. Raises UserError for values out of range.
        """
        return Stream(
            self._engine,
            self._tokenizer,
            sample_rate=sample_rate,
            delay=self.delay if delay is None else delay,
            endpoint_silence=endpoint_silence,
            max_segment=max_segment,
            history=history,
            turn_events=turn_events,
        )

    def step(self, streams: Sequence[Stream]) -> list[list[Event]]:
        """Recognise what has been fed to many streams, as one batch; returns the events of each.

        Streams need not be in step with one another. What comes out is what each alone would have given.
        """
        return step(streams)

    def transcribe(
        self,
        path: str | Path | BinaryIO,
        *,
        on_event: Callable[[Event], None] | None = None,
        on_audio: Callable[[float], bool | None] | None = None,
        delay: int | None = None,
        endpoint_silence: float | None = 0.8,
        channel: str | int | None = None,
        track: int | None = None,
    ) -> Transcript:
        """Transcribe a file of any length in constant memory (but for the transcript).

        path: of a file or a named pipe, or a binary file that is open. channel: the one to take, from 1, or left,
        right, center; None: all that have speech. track: the sound track, from 1; None: the one that players take.
        delay: label delay in chunks; None: `file_delay`, the model's own for recordings, not that of live streams.
        on_event: called with every event as it happens. on_audio: called with the seconds read so far,
        before they are recognised; returning False stops there, and what was heard is returned.
        Raises UserError for a file that cannot be used. Where a part of it is damaged or missing, the rest is
        transcribed, with an AudioWarning that the transcript's `warnings` repeat.
        """
        segments: list[Final] = []
        seconds = 0.0

        def handle(events: Sequence[Event]) -> None:
            for event in events:
                if isinstance(event, Final):
                    segments.append(event)
                if on_event:
                    on_event(event)

        with open_audio(path, channel=channel, track=track) as source:
            stream = self.stream(
                source.rate,
                delay=self.file_delay if delay is None else delay,
                endpoint_silence=endpoint_silence,
                history=0,
            )
            # short blocks, for `on_audio` may pace them as a live speaker would
            blocks = source.blocks(0.1)
            heard = 0.0
            while True:
                # time of the processor: a pipe may have been waited for
                started = time.thread_time()
                block = next(blocks, None)
                seconds += time.thread_time() - started
                if block is None:
                    break
                heard += len(block) / source.rate
                if on_audio and on_audio(heard) is False:
                    break
                handle(stream.accept(np.ascontiguousarray(block)))
            warnings = tuple(source.warnings)
        handle(stream.finish().events)
        seconds += stream.compute_seconds
        return Transcript.of(
            segments,
            duration=stream.duration,
            seconds=seconds,
            file=str(path) if isinstance(path, (str, Path)) else None,
            warnings=warnings,
        )
