"""The routes of the server as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from ..recognizer import Recognizer
from .metrics import CONTENT_TYPE
from .plain import stream
from .realtime import realtime
from .service import Service, error_response
from .settings import Refused, Settings
from .status import ready, status, watch_loop
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
        watcher = asyncio.ensure_future(watch_loop(service.metrics))
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.to_thread(service.tracing.close)
            await service.batcher.stop()

    routes = [
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", metrics),
        Route("/v1/status", status),
        Route("/v1/info", info),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
        WebSocketRoute("/v1/stream", stream),
        WebSocketRoute("/v1/realtime", realtime),
    ]
    routes.append(Mount("/", Elsewhere(list(routes))))
    middleware = [Middleware(Headers), Middleware(TidyPaths)]
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
        routes=routes,
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _fault},
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
    return JSONResponse({"object": "list", "data": [_entry(service)]})


async def model(request: Request) -> Response:
    """One model; "default" is the one there is."""
    service: Service = request.app.state.service
    service.guard.check_key(request)
    name = request.path_params["name"]
    if name not in ("default", service.recognizer.model.name):
        known = service.recognizer.model.name
        raise Refused("model_not_found", f"there is no model {name[:80]!r} here; there is {known!r}")
    return JSONResponse(_entry(service))


def _entry(service: Service) -> dict[str, Any]:
    return {
        "id": service.recognizer.model.name,
        "object": "model",
        "created": 0,
        "owned_by": "speech-reallm",
    }


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router says no to, in the shape of all other errors."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    message = {
        404: f"there is nothing at {request.method} {request.url.path[:200]}; see docs/openai.md",
        405: f"{request.method} is not possible at {request.url.path[:200]}",
    }.get(error.status_code, error.detail)
    return error_response(Refused(code, message), error.status_code, error.headers)


async def _fault(request: Request, error: Exception) -> Response:
    return error_response(Refused("internal", "a fault of the server; its log says more"))


class Elsewhere:
    """What no route has: files of the page; else the right error, for a path or a method that is not known."""

    def __init__(self, routes: list[BaseRoute]) -> None:
        self._routes = routes
        self._files = StaticFiles(directory=WEB, html=True) if (WEB / "index.html").is_file() else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            nothing = Refused("not_found", "there is no WebSocket at this path; see docs/websocket.md")
            await WebSocket(scope, receive, send).send_denial_response(error_response(nothing))
            return
        path = "/" + scope["path"].lstrip("/")
        known = {**scope, "path": path, "root_path": "", "app_root_path": ""}
        for route in self._routes:
            if isinstance(route, WebSocketRoute) and route.path == path:
                raise HTTPException(426, "connect with a WebSocket", headers={"Upgrade": "websocket"})
            if isinstance(route, Route) and route.matches(known)[0] == Match.PARTIAL:
                allowed = ", ".join(sorted(route.methods or ()))
                raise HTTPException(405, headers={"Allow": allowed})
        if self._files is None or path.startswith("/v1/"):
            raise HTTPException(404)
        reading = scope["method"] in ("GET", "HEAD")
        await self._files(
            {**scope, "method": "GET"} if not reading else scope, receive, send if reading else _unsent
        )
        if not reading:
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})


async def _unsent(message: Message) -> None:
    """Nobody is told: it was only asked whether there is a file."""


class TidyPaths:
    """`/v1//models/` is `/v1/models`: base addresses are given with and without a slash at their end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"].startswith("/v1/"):
            path = re.sub("/{2,}", "/", scope["path"]).rstrip("/")
            scope = {**scope, "path": path}
        await self._app(scope, receive, send)


class Headers:
    """What browsers are told about pages of this server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def extended(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", [])}
                # a browser asks whether what it keeps is still what there is: no mix of old and new after an upgrade
                fresh = [] if b"cache-control" in given else [(b"cache-control", b"no-cache")]
                message["headers"] = [
                    *message.get("headers", []),
                    *fresh,
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, extended if scope["type"] == "http" else send)
