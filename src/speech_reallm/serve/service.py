"""What all protocols of one server share: the batcher, its limits, and the books that are kept."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from .. import __version__
from ..audio import MAX_RATE, MIN_RATE
from ..events import Event, Final, Partial
from ..recognizer import Recognizer
from . import tracing
from .batcher import Batcher, Session
from .guard import Guard
from .metrics import Metrics
from .settings import Refused, Settings
from .sockets import Gone, Socket

log = logging.getLogger("speech_reallm.serve")


class Service:
    """One server's parts. Lives in `app.state.service`."""

    def __init__(self, recognizer: Recognizer, settings: Settings) -> None:
        self.recognizer, self.settings = recognizer, settings
        self.started = time.monotonic()
        self.metrics = Metrics()
        self.guard = Guard(settings)
        self.tracing = tracing.set_up()
        self._spans: dict[str, tracing.SessionSpan] = {}
        self.batcher = Batcher(recognizer, settings, self.metrics)

    def check(self, request: HTTPConnection) -> None:
        """Raises Refused for a wrong key, or too many requests."""
        self.guard.check_key(request)
        self.guard.count(request)

    async def let_in(self, websocket: WebSocket) -> bool:
        """Whether a page of this origin may connect; if not, the handshake has been answered with 403."""
        try:
            self.guard.check_origin(websocket)
        except Refused as refused:
            self.note_refusal(refused)
            await websocket.send_denial_response(error_response(refused))
            return False
        return True

    def note_refusal(self, refused: Refused) -> None:
        self.metrics.refused.labels(refused.code).inc()
        log.info("refused", extra={"code": refused.code})

    async def refuse(self, socket: Socket, refused: Refused) -> None:
        """Say no to a connection that has just been made."""
        self.note_refusal(refused)
        await self.fail(socket, refused)

    async def fail(self, socket: Socket, refused: Refused) -> None:
        """An error message and the close that goes with it."""
        # who does not read will not read this either
        if refused.code != "too_slow":
            with contextlib.suppress(Exception):
                await socket.send({"type": "error", "code": refused.code, "message": refused.message})
        await socket.close(refused.close_code, refused.message)

    @contextlib.contextmanager
    def session(
        self, session: Session, request: HTTPConnection | str | None, audio: Callable[[], float] | None = None
    ) -> Iterator[None]:
        """Keeps the books of a session and closes it in the end, whatever happens.

        Raises Refused as the body does, and for any fault. That the client is gone is no fault.
        request: or the address that the client is at. audio: seconds that came in all, where others took the
        session's place.
        """
        client = request
        if isinstance(request, HTTPConnection):
            client = request.client.host if request.client else None
        options = session.options
        log.info(
            "session opened",
            extra={"session": session.id, "kind": session.kind, "client": client, "rate": options.rate},
        )
        span = self._spans[session.id] = self.tracing.session(session.id, session.kind, options.rate)
        try:
            yield
        except Gone:
            session.stopped = Refused("gone", "the client hung up")
        except Refused as refused:
            session.stopped = refused
            raise
        except Exception:
            log.exception("session failed", extra={"session": session.id})
            session.stopped = Refused("internal", "a fault of the server")
            raise session.stopped from None
        finally:
            session.close()
            code = session.stopped.code if session.stopped else "ok"
            if session.stopped:
                self.metrics.failed.labels(code).inc()
            seconds, taken = time.monotonic() - session.opened, audio() if audio else session.seconds
            span.end(code, audio_seconds=taken)
            self._spans.pop(session.id, None)
            log.info(
                "session closed",
                extra={
                    "session": session.id,
                    "code": code,
                    "seconds": round(seconds, 3),
                    "audio": round(taken, 3),
                },
            )

    def note_sent(self, session: Session, event: Event) -> None:
        """An event has gone to the client."""
        if isinstance(event, Partial) and (span := self._spans.get(session.id)):
            span.first_word()
        if self.settings.log_transcripts and isinstance(event, Final):
            log.info("final", extra={"session": session.id, "text": event.text, "start": event.start})

    def info(self) -> dict[str, Any]:
        """What GET /v1/info says."""
        model, settings = self.recognizer.model, self.settings
        return {
            "version": __version__,
            "models": [model.name],
            "language": model.language,
            "chunk_ms": model.chunk_ms,
            "lookahead_chunks": model.lookahead_chunks,
            "delays": list(model.delays),
            "delay": self.recognizer.delay,
            "key_required": bool(settings.keys),
            "limits": {
                "sessions": settings.sessions,
                "message_bytes": settings.message_bytes,
                "upload_bytes": settings.upload_bytes,
                "upload_seconds": settings.upload_seconds,
                "idle_seconds": settings.idle_seconds,
                "rate_min": MIN_RATE,
                "rate_max": MAX_RATE,
            },
        }


def error_body(refused: Refused, status: int | None = None) -> dict[str, Any]:
    """An error of the HTTP side, in the shape that OpenAI's clients read."""
    kind = "invalid_request_error" if (status or refused.status) < 500 else "server_error"
    return {"error": {"message": refused.message, "type": kind, "param": None, "code": refused.code}}


def error_response(
    refused: Refused, status: int | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """status: another than the code's own."""
    status = status or refused.status
    all_headers = dict(headers or {})
    if status in (429, 503):
        all_headers["Retry-After"] = "10"
    if status == 401:
        all_headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(refused, status), status, headers=all_headers)
