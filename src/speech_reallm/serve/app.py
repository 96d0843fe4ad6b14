"""The routes of the server as an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..recognizer import Recognizer
from .metrics import CONTENT_TYPE
from .plain import stream
from .realtime import realtime
from .service import Service, error_response
from .settings import Refused, Settings
from .uploads import transcriptions

WEB = Path(__file__).parent / "web"
# a blob is what the page offers for download; connections go to this host only
POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; media-src 'self' blob:; "
    "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
)


def make_app(recognizer: Recognizer, settings: Settings | None = None) -> Starlette:
    """The application; `app.state.service` has its parts. Its lifespan runs the batching thread."""
    service = Service(recognizer, settings or Settings())

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.batcher.start()
        try:
            yield
        finally:
            await service.batcher.stop()

    routes = [
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/v1/info", info),
        Route("/v1/models", models),
        Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
        WebSocketRoute("/v1/stream", stream),
        WebSocketRoute("/v1/realtime", realtime),
    ]
    if (WEB / "index.html").is_file():
        routes.append(Mount("/", StaticFiles(directory=WEB, html=True)))
    middleware = [Middleware(Headers)]
    if service.settings.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(service.settings.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type"],
            )
        )
    app = Starlette(
        routes=routes, middleware=middleware, lifespan=lifespan, exception_handlers={Refused: _refused}
    )
    app.state.service = service
    return app


async def _refused(request: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    request.app.state.service.note_refusal(refused)
    return error_response(refused)


async def health(request: Request) -> Response:
    """200 while new sessions may come, 503 from the moment the server goes down."""
    batcher = request.app.state.service.batcher
    status = "ok" if batcher.healthy else "draining" if batcher.draining else "dead"
    return JSONResponse({"status": status, "sessions": batcher.sessions}, 200 if status == "ok" else 503)


async def metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    service.guard.check_key(request)
    return PlainTextResponse(service.metrics.text(), media_type=CONTENT_TYPE)


async def info(request: Request) -> Response:
    return JSONResponse(request.app.state.service.info())


async def models(request: Request) -> Response:
    """As OpenAI's clients ask for it."""
    service: Service = request.app.state.service
    service.guard.check_key(request)
    name = service.recognizer.model.name
    entry = {"id": name, "object": "model", "created": 0, "owned_by": "speech-reallm"}
    return JSONResponse({"object": "list", "data": [entry]})


class Headers:
    """What browsers are told about pages of this server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def extended(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, extended if scope["type"] == "http" else send)
