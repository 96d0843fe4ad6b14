"""The plain WebSocket, /v1/stream: binary PCM in, JSON events out; docs/websocket.md describes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from starlette.datastructures import QueryParams
from starlette.websockets import WebSocket

from ..audio import MAX_RATE, MIN_RATE, SAMPLE_RATE
from ..events import Endpoint, EndpointProposed, EndpointRetracted, Event, Final, Partial, SpeechStarted, Word
from .batcher import Options, Session
from .service import Service
from .settings import Refused
from .sockets import Gone, Socket, both
from .values import check_language, read_numbers, read_strength, read_terms, whole_number

log = logging.getLogger("speech_reallm.serve")
MAX_ENDPOINT_MS = 60000
MIN_PROGRESS_MS, MAX_PROGRESS_MS = 100, 60000


async def stream(websocket: WebSocket) -> None:
    """One connection, from handshake to close."""
    service: Service = websocket.app.state.service
    if not await service.let_in(websocket):
        return
    await websocket.accept()
    socket = Socket(websocket, service.settings)
    try:
        # told inside the connection, for a browser's script learns nothing of a failed handshake
        service.check(websocket)
        check_language(websocket.query_params.get("language"), service.recognizer.model.language)
        options = read_options(websocket.query_params)
        progress_seconds = read_progress(websocket.query_params)
        session = service.batcher.open(options, "stream")
    except Refused as refused:
        await service.refuse(socket, refused)
        return
    try:
        with service.session(session, websocket):
            await socket.send(ready(service, session))
            async with _reporting(socket, session, progress_seconds):
                await both(_read(socket, session), _write(socket, session, service))
            if session.stopped:
                raise session.stopped
            await socket.close()
    except Refused as refused:
        await service.fail(socket, refused)


async def _read(socket: Socket, session: Session) -> None:
    while True:
        try:
            message = await socket.receive()
        except Refused as refused:
            # what it did say is still answered
            session.finish(refused)
            return
        if isinstance(message, bytes):
            await session.send(message)
            continue
        fields = read_message(message)
        if fields["type"] == "finish":
            session.finish()
        elif fields["type"] == "hotwords":
            strength = fields.get("strength", session.options.hotwords_strength)
            session.set_hotwords(read_terms(fields.get("terms")), read_strength(strength))


async def _write(socket: Socket, session: Session, service: Service) -> None:
    async for events in session.events():
        for event in events:
            await socket.send(to_json(event))
            service.note_sent(session, event)


@contextlib.asynccontextmanager
async def _reporting(socket: Socket, session: Session, seconds: float | None) -> AsyncIterator[None]:
    """While it is entered, a `progress` message every `seconds`; none for None."""
    reporter = asyncio.ensure_future(_report(socket, session, seconds)) if seconds else None
    try:
        yield
    finally:
        if reporter:
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)


async def _report(socket: Socket, session: Session, seconds: float) -> None:
    # a client that is gone or does not read is noticed by those who read and write
    with contextlib.suppress(Gone, Refused):
        while True:
            await asyncio.sleep(seconds)
            await socket.send({"type": "progress", "time": round(session.recognised_seconds, 3)})


def read_options(query: QueryParams) -> Options:
    """Options from the query of the URL. Raises Refused for those that are no numbers or out of range."""
    endpoint = _integer(query, "endpoint_ms", 800, 0, MAX_ENDPOINT_MS)
    turn_events = query.get("turn_events", "").lower()
    if turn_events not in ("", "0", "1", "false", "true"):
        raise Refused("bad_request", "turn_events must be true or false")
    return Options(
        rate=_integer(query, "rate", SAMPLE_RATE, MIN_RATE, MAX_RATE),
        delay=_integer(query, "delay", None, 0, 64),
        endpoint_silence=endpoint / 1000 if endpoint else None,
        turn_events=turn_events in ("1", "true"),
        numbers=read_numbers(query.get("numbers")),
        hotwords=read_terms(query.get("hotwords", "")),
        hotwords_strength=read_strength(query.get("hotwords_strength")),
    )


def read_progress(query: QueryParams) -> float | None:
    """Seconds between two `progress` messages, None for none. Raises Refused as `read_options` does."""
    milliseconds = _integer(query, "progress_ms", None, MIN_PROGRESS_MS, MAX_PROGRESS_MS)
    return milliseconds / 1000 if milliseconds else None


Default = TypeVar("Default", int, None)


def _integer(query: QueryParams, name: str, default: Default, low: int, high: int) -> int | Default:
    text = query.get(name)
    return default if text is None or text == "" else whole_number(text, name, low, high)


def read_message(text: str) -> dict[str, Any]:
    """A client's JSON message, with its `type`. Raises Refused for what is none."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("bad_message", "a text message must be JSON; audio goes in binary messages") from None
    kind = message.get("type") if isinstance(message, dict) else None
    if kind not in ("finish", "keepalive", "hotwords"):
        raise Refused("bad_message", "the type of a text message is finish, hotwords or keepalive")
    fields: dict[str, Any] = message
    return fields


def ready(service: Service, session: Session) -> dict[str, Any]:
    model = service.recognizer.model
    return {
        "type": "ready",
        "session": session.id,
        "model": model.name,
        "chunk_ms": model.chunk_ms,
        "delays": list(model.delays),
        "delay": session.options.delay,
        "rate": session.options.rate,
    }


_TYPES: dict[type[Event], str] = {
    SpeechStarted: "speech_started",
    EndpointProposed: "endpoint_proposed",
    EndpointRetracted: "endpoint_retracted",
    Endpoint: "endpoint",
}


def to_json(event: Event) -> dict[str, Any]:
    if isinstance(event, Partial):
        words = [word_json(w) for w in event.words]
        return {"type": "partial", "text": event.text, "words": words, "time": round(event.time, 3)}
    if isinstance(event, Final):
        return {
            "type": "final",
            "text": event.text,
            "words": [word_json(w) for w in event.words],
            "start": round(event.start, 3),
            "end": round(event.end, 3),
        }
    return {"type": _TYPES[type(event)], "time": round(event.time, 3)}


def word_json(word: Word) -> dict[str, Any]:
    return {
        "word": word.word,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": round(word.confidence, 4),
    }
