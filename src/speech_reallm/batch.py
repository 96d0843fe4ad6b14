"""Many files through one engine at once, as many of them side by side as the engine has threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UserError
from .events import Event, Final, Transcript
from .media import open_audio
from .options import StreamOptions

if TYPE_CHECKING:
    from .recognizer import Recognizer
    from .stream import Stream

# files at once: so many may keep threads busy
BATCH = 8
# chunks that each file contributes to a step
CHUNKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of the file number `index`: a transcript, or an `error` that says why there is none.

    `complete`: all of the file was received.
    """

    index: int
    transcript: Transcript | None = None
    error: UserError | None = None
    complete: bool = True


class _File:
    """A file that is being recognised."""

    def __init__(self, index: int, name: str, source: Any, stream: Stream, block_seconds: float) -> None:
        self.index, self.name, self.source, self.stream = index, name, source, stream
        self.blocks = source.blocks(block_seconds)
        self.segments: list[Final] = []
        self.received = 0.0
        self.seconds = 0.0
        self.complete = self.ended = False

    def read(self) -> np.ndarray | None:
        """The next block [n], None at the end. Raises UserError."""
        # time of the processor: a pipe may have been waited for
        started = time.thread_time()
        block = next(self.blocks, None)
        self.seconds += time.thread_time() - started
        if block is None:
            self.complete = True
        else:
            self.received += len(block) / self.source.rate
        return block

    def end(self) -> None:
        self.stream.end()
        self.ended = True

    def result(self) -> Result:
        seconds = self.seconds + self.stream.compute_seconds
        transcript = Transcript.of(
            self.segments,
            duration=self.stream.duration,
            seconds=seconds,
            file=self.name,
            warnings=tuple(getattr(self.source, "warnings", ())),
        )
        return Result(index=self.index, transcript=transcript, complete=self.complete)


def transcribe_files(
    recognizer: Recognizer,
    files: Iterable[Any],
    *,
    batch: int = BATCH,
    open_file: Callable[[Any], Any] = open_audio,
    on_event: Callable[[int, Event], None] | None = None,
    on_audio: Callable[[int, float, float], bool | None] | None = None,
    options: StreamOptions | None = None,
    block_seconds: float | None = None,
) -> Iterator[Result]:
    """Transcribe files of any length, `batch` at a time; results come as files are done, in any order.

    files: paths, or whatever `open_file` turns into an AudioSource (with `duration`, and `warnings` if there are any).
    Memory grows with `batch` and the transcripts, not with the length of the files. on_event(index, event) is called
    with every event; on_audio(index, seconds received, seconds of the file or 0) before each block is recognised: if it
    returns False, all files end there and what was recognised is returned. options: of the streams; their label delay
    is by default `Recognizer.file_delay`. block_seconds: how much of a file is read at once. Files that cannot be used
    give a Result with an error.
    """
    if batch < 1:
        raise UserError("batch must be at least 1")
    seconds = block_seconds or CHUNKS * recognizer.model.chunk_seconds
    queue = enumerate(files)
    active: list[_File] = []
    stopped = False
    try:
        while True:
            while not stopped and len(active) < batch and (item := next(queue, None)):
                index, name = item
                source = None
                try:
                    source = open_file(name)
                    stream = recognizer.stream(source.rate, options=recognizer.file_options(options))
                    active.append(_File(index, str(name), source, stream, seconds))
                except UserError as err:
                    if source is not None:
                        source.close()
                    yield Result(index=index, error=err)
            if not active:
                return
            for file in list(active):
                try:
                    block = None if stopped else file.read()
                except UserError as err:
                    active.remove(file)
                    file.source.close()
                    yield Result(index=file.index, error=err)
                    continue
                if block is not None and on_audio:
                    stopped = on_audio(file.index, file.received, file.source.duration) is False
                if block is None or stopped:
                    file.end()
                else:
                    file.stream.feed(np.ascontiguousarray(block))
            if stopped:
                for file in active:
                    file.end()
            events = recognizer.step([file.stream for file in active])
            for file, happened in zip(list(active), events, strict=True):
                for event in happened:
                    if isinstance(event, Final):
                        file.segments.append(event)
                    if on_event:
                        on_event(file.index, event)
                if file.ended:
                    active.remove(file)
                    file.source.close()
                    yield file.result()
    finally:
        for file in active:
            file.source.close()
