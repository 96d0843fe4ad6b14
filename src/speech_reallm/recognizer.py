"""The public face of the runtime: load a model, open streams, transcribe files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .audio import SAMPLE_RATE
from .engine import Engine
from .errors import UserError
from .events import Event, Final, Transcript
from .modelfolder import ModelFolder, open_folder
from .options import StreamOptions
from .sources import AudioSource, Recording, open_source
from .stream import PCM, Stream, step
from .tokenizer import Tokenizer, open_tokenizer


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
        self._in_blocks = delay is None and folder.file_blocks is not None

    @classmethod
    def load(cls, model: str | Path | None = None, threads: int = 1, delay: int | None = None) -> Recognizer:
        """Load a model folder; None or "default" is the model inside the package.

        threads: streams computed at once, each on a thread. delay: label delay in chunks for streams and
        recordings that name none; None: the model's own, which for recordings is larger and makes fewer errors.
        Raises UserError for a folder that is missing, damaged or of another format.
        """
        folder = open_folder(model)
        return cls(Engine(folder, threads), open_tokenizer(folder.file(folder.tokenizer)), delay)

    @property
    def model(self) -> ModelFolder:
        """What config.json states: name, language, chunk_ms, lookahead_chunks, delays, ..."""
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
        options: StreamOptions | None = None,
        **changes: Any,
    ) -> Stream:
        """Open a stream.

        sample_rate: Hz, 8000 to 192000. options and changes: see `StreamOptions`; each of its fields may be given by
        itself, too: `stream(48000, delay=0, endpoint_silence=0.5)`. Raises UserError for values out of range.
        """
        options = replace(options or StreamOptions(), **changes)
        in_blocks = options.recording and options.delay is None and self._in_blocks
        if options.delay is None:
            options = replace(options, delay=self.file_delay if options.recording else self.delay)
        return Stream(
            self._engine, self._tokenizer, sample_rate=sample_rate, options=options, in_blocks=in_blocks
        )

    def file_options(self, options: StreamOptions | None = None, **changes: Any) -> StreamOptions:
        """Options for a recording, of which the stream keeps no history."""
        return replace(options or StreamOptions(), **{"recording": True, **changes, "history": 0.0})

    def step(self, streams: Sequence[Stream]) -> list[list[Event]]:
        """Recognise what has been fed to many streams; returns the events of each.

        Streams need not be in step with one another. What comes out is what each alone would have given.
        """
        return step(streams)

    def transcribe(
        self,
        audio: AudioSource | Recording,
        *,
        sample_rate: int | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_audio: Callable[[float], bool | None] | None = None,
        channel: str | int | None = None,
        track: int | None = None,
        options: StreamOptions | None = None,
        **changes: Any,
    ) -> Transcript:
        """Transcribe a recording of any length, a file in constant memory (but for the transcript).

        audio: the path of a sound or video file or of a named pipe, a binary file that is open, the bytes of a file, an
        array of samples (with `sample_rate`) or what soundfile.read returns, or any AudioSource. sample_rate: Hz, of an
        array; of bytes and files it says that they are raw 16-bit samples, little endian, mono. channel: the one to
        take, from 1, or left, right, center; None: all that have speech. track: the sound track, from 1; None: the one
        that players take. on_event: called with every event as it happens. on_audio: called with the seconds read so
        far, before they are recognised; returning False stops there, and what was recognised is returned. options and
        changes: as for `stream`, but that the label delay is by default `file_delay`, the model's own for recordings.
        Raises UserError for audio that cannot be used. Where a part of a file is damaged or
        missing, the rest is transcribed, with an AudioWarning that the transcript's `warnings` repeat.
        """
        segments: list[Final] = []
        seconds = 0.0

        def handle(events: Sequence[Event]) -> None:
            for event in events:
                if isinstance(event, Final):
                    segments.append(event)
                if on_event:
                    on_event(event)

        source, name = open_source(audio, sample_rate, channel=channel, track=track)
        try:
            stream = self.stream(source.rate, options=self.file_options(options, **changes))
            # short blocks, for `on_audio` may pace them as a live speaker would
            blocks = source.blocks(0.1)
            received = 0.0
            while True:
                # time of the processor: a pipe may have been waited for
                started = time.thread_time()
                block = next(blocks, None)
                seconds += time.thread_time() - started
                if block is None:
                    break
                received += len(block) / source.rate
                if on_audio and on_audio(received) is False:
                    break
                handle(stream.accept(np.ascontiguousarray(block)))
        finally:
            source.close()
        handle(stream.finish().events)
        seconds += stream.compute_seconds
        return Transcript.of(
            segments,
            duration=stream.duration,
            seconds=seconds,
            file=name,
            warnings=tuple(getattr(source, "warnings", ())),
        )

    async def events(
        self,
        audio: AsyncIterable[PCM] | Iterable[PCM],
        sample_rate: int = SAMPLE_RATE,
        *,
        options: StreamOptions | None = None,
        **changes: Any,
    ) -> AsyncIterator[Event]:
        """Recognise live audio in asyncio: `async for event in recognizer.events(packets, 48000): ...`.

        audio: PCM as `Stream.accept` takes it, from an asynchronous iterator, or from another, which is then waited for
        in a thread. The computing is done in threads, too, so that the event loop goes on. All else as for `stream`.
        """
        stream = self.stream(sample_rate, options=options, **changes)
        async for pcm in _asynchronous(audio):
            for event in await asyncio.to_thread(stream.accept, pcm):
                yield event
        for event in (await asyncio.to_thread(stream.finish)).events:
            yield event


async def _asynchronous(audio: AsyncIterable[PCM] | Iterable[PCM]) -> AsyncIterator[PCM]:
    if isinstance(audio, AsyncIterable):
        async for pcm in audio:
            yield pcm
        return
    iterator = iter(audio)

    def following() -> PCM | None:
        return next(iterator, None)

    while (block := await asyncio.to_thread(following)) is not None:
        yield block
