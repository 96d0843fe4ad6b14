"""The server process: uvicorn around the application, and an end that loses no words."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from types import FrameType

import uvicorn

from ..errors import UserError
from ..recognizer import Recognizer
from .app import make_app
from .settings import Settings

log = logging.getLogger("speech_reallm.serve")
# sockets for pages, metrics and refusals, beside those of sessions
SPARE_CONNECTIONS = 256


class Server(uvicorn.Server):
    """Told to stop, it admits nobody, sends all finals, and only then closes. Told twice, it stops at once."""

    def __init__(
        self,
        recognizer: Recognizer,
        settings: Settings,
        sock: socket.socket,
        tls: ssl.SSLContext | None = None,
        wyoming: socket.socket | None = None,
    ) -> None:
        """wyoming: where the Wyoming protocol is spoken, too. Raises UserError where its package is missing."""
        app = make_app(recognizer, settings)
        self.service = app.state.service
        self._socket = sock
        self._wyoming = None
        if wyoming is not None:
            from .wyoming import Wyoming

            self._wyoming = Wyoming(self.service, wyoming)
        self._scheme = "https" if tls else "http"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=settings.message_bytes * settings.frame_factor,
            ws_ping_interval=settings.ping_seconds,
            # pings keep proxies from giving up; who is gone is noticed by `idle_seconds`. An answer to a ping
            # may be long in coming: it waits behind audio that was sent faster than it is recognised
            ws_ping_timeout=None,
            # audio does not compress, and every compressor costs memory
            ws_per_message_deflate=False,
            limit_concurrency=settings.sessions + SPARE_CONNECTIONS,
            timeout_graceful_shutdown=5,
            lifespan="on",
            ssl_context_factory=(lambda *_: tls) if tls else None,
        )
        super().__init__(config)

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets or [self._socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._wyoming is not None:
            await self._wyoming.start()
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        model = self.service.recognizer.model.name
        log.info("listening", extra={"url": f"{self._scheme}://{shown}:{port}", "port": port, "model": model})
        if not self.service.settings.keys and not ipaddress.ip_address(host).is_loopback:
            log.warning("no API key: whoever can reach this address may use it (--api-key-file)")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._wyoming is not None:
            await self._wyoming.stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """For SIGTERM and SIGINT; comes in the main thread, between any two steps of the event loop."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Begin the end; in the event loop."""
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        batcher = self.service.batcher
        log.info("draining", extra={"sessions": batcher.sessions})
        emptied = await batcher.drain(self.service.settings.drain_seconds)
        log.info("drained", extra={"complete": emptied})
        self.should_exit = True


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UserError where that is not possible."""
    if not 0 <= port <= 65535:
        # the resolver would take what is left of it modulo 65536
        raise UserError(f"{option} must be from 0 to 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError):
        raise UserError(
            f"{host}:{port} is no address to listen at; try --host 127.0.0.1 --port 8000"
        ) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as err:
        sock.close()
        raise UserError(f"cannot listen at {host}:{port}: {err.strerror}; try another {option}") from None
    return sock


def tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """None without a certificate. Raises UserError for files that are none, or that do not belong together."""
    if certificate is None:
        if key is not None:
            raise UserError("--tls-key needs --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)

    def no_password() -> str:
        raise UserError(f"{key or certificate} is encrypted; decrypt it first: openssl pkey -in OLD -out NEW")

    try:
        context.load_cert_chain(certificate, key, no_password)
    except OSError as err:
        # ssl.SSLError is one, too
        reason = err.strerror if err.filename or not isinstance(err, ssl.SSLError) else err.reason
        raise UserError(
            f"cannot use the certificate {certificate} and the key {key or 'in it'}: {reason}; both must be PEM"
        ) from None
    return context


def run(
    recognizer: Recognizer,
    settings: Settings,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    wyoming: tuple[str, int] | None = None,
) -> int:
    """Serve until told to stop. wyoming: address and port for that protocol."""
    extra = bind(*wyoming, option="--wyoming") if wyoming else None
    server = Server(recognizer, settings, bind(host, port), tls, extra)
    # uvicorn would raise the signal again at its end; a server that was asked to stop has succeeded
    server.run()
    return 0
