"""POST /v1/audio/transcriptions: a recording as text, JSON, subtitles, or text as it is recognised (SSE).

A recording is recognised like any session, in the same batches; others do not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from ..errors import UserError
from ..events import Event, Final, Partial, Transcript
from ..formats import FORMATS
from ..hotwords import DEFAULT_STRENGTH, terms_of_prompt
from ..media import open_audio
from .batcher import Options, Session
from .plain import word_json
from .service import Service, error_body
from .settings import Refused, Settings
from .spool import SpooledParser, StorageError
from .values import check_language, read_numbers, read_strength, read_terms

log = logging.getLogger("speech_reallm.serve")

RESPONSE_FORMATS = ("json", "verbose_json", "text", "srt", "vtt")
MAX_FIELDS = 64
# of a field that is no file
MAX_FIELD_BYTES = 64 << 10
# beside the file: fields and boundaries
FORM_BYTES = 1 << 20
# seconds of audio that are decoded at a time
BLOCK = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a client asks for. words: with the times of words, in verbose_json."""

    format: str
    stream: bool
    words: bool
    delay: int | None = None
    numbers: str | None = None
    hotwords: tuple[str, ...] = ()
    hotwords_strength: float = DEFAULT_STRENGTH


async def transcriptions(request: Request) -> Response:
    """The route. Whatever is wrong is told in the shape that OpenAI's clients read."""
    service: Service = request.app.state.service
    service.guard.check_origin(request)
    service.check(request)
    # the place is taken before megabytes are read, lest many of them arrive for few places
    place = service.batcher.open(Options(recording=True), "upload")
    recording = None
    try:
        form = await read_form(request, service.settings)
        try:
            wanted = read_wanted(form, service.recognizer.model.language)
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Refused("bad_request", "file: send the recording as multipart/form-data")
            if (file.size or 0) > service.settings.upload_bytes:
                raise too_large(service.settings)
            recording = await asyncio.to_thread(Recording, file.file, service.settings.upload_seconds)
        finally:
            if recording is None:
                await form.close()
        options = Options(
            rate=recording.source.rate,
            delay=wanted.delay,
            numbers=wanted.numbers,
            hotwords=wanted.hotwords,
            hotwords_strength=wanted.hotwords_strength,
            recording=True,
        )
        session = service.batcher.open(options, "upload", instead_of=place)
    except BaseException:
        place.close()
        if recording is not None:
            recording.close()
        raise
    if wanted.stream:
        return EventStream(service, session, recording, request)
    finals: list[Final] = []
    try:
        with service.session(session, request):
            async with contextlib.aclosing(recognise(service, session, recording, request)) as events:
                async for event in events:
                    if isinstance(event, Final):
                        finals.append(event)
    finally:
        recording.close()
    transcript = Transcript.of(finals, duration=session.seconds, seconds=0.0, warnings=recording.warnings)
    return respond(transcript, wanted, service.recognizer.model.language)


class Recording:
    """An uploaded file, for as long as it is needed: everything that the command line reads is read here."""

    def __init__(self, file: BinaryIO, limit: float) -> None:
        """Blocking. file: seekable; it is closed with the recording. limit: seconds. Raises Refused for no audio."""
        self._file, self._limit = file, limit
        self._busy, self._closed = threading.Lock(), False
        try:
            # what is wrong with it is for its sender, not for the server's log
            self.source = open_audio(file, name="the recording", on_warning=lambda *_: None)
        except UserError as err:
            file.close()
            raise Refused("bad_request", str(err)) from None
        except BaseException:
            file.close()
            raise
        self._blocks = self.source.blocks(BLOCK)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with it so far: sentences that begin with "the recording"."""
        return tuple(self.source.warnings)

    def block(self) -> np.ndarray | None:
        """Blocking: the next samples, float32 [n], None at the end. Raises Refused."""
        self._busy.acquire()
        try:
            block = None if self._closed else next(self._blocks, None)
        except UserError as err:
            raise Refused("bad_request", str(err)) from None
        finally:
            self._busy.release()
            if self._closed:
                self.close()
        if block is not None:
            self._limit -= len(block) / self.source.rate
            if self._limit < 0:
                raise Refused("too_large", "the recording is too long for this server; cut it")
        return block

    def close(self) -> None:
        """Does not wait: a decoder that is at work in its thread is closed when it is done."""
        self._closed = True
        if self._busy.acquire(blocking=False):
            try:
                self.source.close()
                self._file.close()
            finally:
                self._busy.release()


async def recognise(
    service: Service, session: Session, recording: Recording, request: Request | None
) -> AsyncGenerator[Event, None]:
    """Events of a recording. Raises Refused if it breaks. request: to notice that its client has left."""

    async def feed() -> None:
        try:
            while not session.ended and (block := await asyncio.to_thread(recording.block)) is not None:
                if request is not None and await request.is_disconnected():
                    raise Refused("gone", "the client hung up")
                await session.send(block)
            session.finish()
        except Refused as refused:
            session.finish(refused)

    feeder = asyncio.ensure_future(feed())
    try:
        async for events in session.events():
            for event in events:
                service.note_sent(session, event)
                yield event
        await feeder
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
    if session.stopped:
        raise session.stopped


class EventStream(StreamingResponse):
    """Deltas, and the whole text at the end, as server-sent events."""

    def __init__(self, service: Service, session: Session, recording: Recording, request: Request) -> None:
        self._session, self._recording = session, recording
        events = _events(service, session, recording, request)
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # a client that leaves at once leaves the events unread, and nothing of them has run
            self._session.close()
            self._recording.close()


async def _events(
    service: Service, session: Session, recording: Recording, request: Request
) -> AsyncGenerator[str, None]:
    def sent(fields: dict[str, Any]) -> str:
        return f"data: {json.dumps(fields, ensure_ascii=False)}\n\n"

    text, new_segment = "", False
    try:
        with service.session(session, request):
            # that the client leaves, the response notices
            async with contextlib.aclosing(recognise(service, session, recording, None)) as events:
                async for event in events:
                    if isinstance(event, Partial):
                        delta = f" {event.text}" if text and new_segment else event.text
                        text, new_segment = text + delta, False
                        yield sent({"type": "transcript.text.delta", "delta": delta})
                    elif isinstance(event, Final):
                        new_segment = True
            warnings = {"warnings": list(recording.warnings)} if recording.warnings else {}
            yield sent({"type": "transcript.text.done", "text": text, **warnings})
    except Refused as refused:
        yield sent(error_body(refused))


def too_large(settings: Settings) -> Refused:
    limit = f"{settings.upload_bytes / (1 << 20):.4g}"
    return Refused("too_large", f"the file is larger than the {limit} MB that this server takes")


async def read_form(request: Request, settings: Settings) -> FormData:
    """The form, its file on disk where it is large.

    Raises Refused for what is too large, comes too slowly, or is no form.
    """
    limit = settings.upload_bytes + FORM_BYTES
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length[:20]) > limit:
        raise too_large(settings)
    receive: Callable[[], Any] = request.receive
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message: Message = await asyncio.wait_for(receive(), settings.send_seconds)
        taken += len(message.get("body", b""))
        if taken > limit:
            raise too_large(settings)
        return message

    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Refused("bad_request", "file: send the recording as multipart/form-data")
    parser = SpooledParser(
        request.headers,
        Request(request.scope, counted).stream(),
        max_files=1,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    try:
        return await asyncio.wait_for(parser.parse(), settings.form_seconds)
    except StorageError as err:
        raise Refused("no_storage", str(err)) from None
    except asyncio.TimeoutError:
        raise Refused("too_slow", "the file stopped coming") from None
    except ClientDisconnect:
        raise Refused("gone", "the client hung up") from None
    except Refused:
        raise
    except MultiPartException as err:
        raise Refused("bad_request", f"not a form that can be read: {err.message}"[:200]) from None
    except Exception:
        # whatever else a form of a stranger may bring about in its parser
        log.exception("unreadable form")
        raise Refused("bad_request", "not a form that can be read; send multipart/form-data") from None


def read_wanted(form: FormData, language: str) -> Wanted:
    """What the fields ask for; a prompt, for hot words. Raises Refused. Temperatures and models' names are ignored."""

    def text(name: str, default: str) -> str:
        value = form.get(name, default)
        if not isinstance(value, str):
            raise Refused("bad_request", f"{name} must be text")
        return value

    check_language(text("language", ""), language)
    kind = text("response_format", "json")
    if kind not in RESPONSE_FORMATS:
        raise Refused("bad_request", f"response_format must be one of {', '.join(RESPONSE_FORMATS)}")
    stream = text("stream", "false").lower()
    if stream not in ("true", "false", "1", "0", ""):
        raise Refused("bad_request", "stream must be true or false")
    asked = [*form.getlist("timestamp_granularities[]"), *form.getlist("timestamp_granularities")]
    if not set(asked) <= {"word", "segment"}:
        raise Refused("bad_request", "timestamp_granularities: word, segment")
    delay = text("delay", "")
    if delay and not (delay.isascii() and delay.isdigit() and len(delay) < 4):
        raise Refused("bad_request", "delay must be a whole number of chunks")
    return Wanted(
        format=kind,
        stream=stream in ("true", "1"),
        words="word" in asked,
        delay=int(delay) if delay else None,
        numbers=read_numbers(text("numbers", "")),
        hotwords=read_terms(text("hotwords", "")) or terms_of_prompt(text("prompt", "")),
        hotwords_strength=read_strength(text("hotwords_strength", "")),
    )


def respond(transcript: Transcript, wanted: Wanted, language: str) -> Response:
    if wanted.format == "json":
        usage = {"type": "duration", "seconds": round(transcript.duration, 3)}
        return JSONResponse({"text": transcript.text, "usage": usage, **_warnings(transcript)})
    if wanted.format == "verbose_json":
        return JSONResponse(verbose(transcript, wanted, language))
    kind = "text/vtt" if wanted.format == "vtt" else "text/plain"
    return PlainTextResponse(FORMATS[wanted.format](transcript), media_type=kind)


def verbose(transcript: Transcript, wanted: Wanted, language: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": language,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "segments": list(_segments(transcript)),
        "usage": {"type": "duration", "seconds": round(transcript.duration, 3)},
    }
    body |= _warnings(transcript)
    if wanted.words:
        body["words"] = [word_json(word) for word in transcript.words]
    return body


def _warnings(transcript: Transcript) -> dict[str, Any]:
    """What was wrong with the recording, in a field that is there only then."""
    return {"warnings": list(transcript.warnings)} if transcript.warnings else {}


def _segments(transcript: Transcript) -> Iterator[dict[str, Any]]:
    """Segments; what other recognisers have and this one has not is zero."""
    for number, segment in enumerate(transcript.segments):
        chances = [max(word.confidence, 1e-9) for word in segment.words]
        yield {
            "id": number,
            "seek": 0,
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            "text": segment.text,
            "tokens": [],
            "temperature": 0.0,
            "avg_logprob": round(float(np.mean(np.log(chances))), 4),
            "compression_ratio": 0.0,
            "no_speech_prob": 0.0,
        }
