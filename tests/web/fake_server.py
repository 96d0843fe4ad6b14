"""The page, `/v1/info`, and a `/v1/stream` that says what a test wants: what the page does when a server misbehaves."""

from __future__ import annotations

import contextlib
import json
import mimetypes
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

WEB = Path(__file__).parents[2] / "src/speech_reallm/serve/web"
# how long a script waits for what should come at once, on a busy machine
PATIENCE = 180
INFO = {
    "version": "0",
    "models": ["fake"],
    "language": "en",
    "chunk_ms": 240,
    "lookahead_chunks": 2,
    "delays": [0, 1, 2],
    "delay": 1,
    "key_required": False,
}

Script = Callable[["Client"], None]


class Client:
    """A connected page, as a script sees it."""

    def __init__(self, socket: ServerConnection) -> None:
        query = parse_qs(urlsplit(socket.request.path).query)
        self.socket = socket
        self.query = {name: values[-1] for name, values in query.items()}
        self.rate = int(self.query["rate"])
        self.samples = self.words = 0
        self.finished = False

    def send(self, kind: str, **fields: object) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def ready(self) -> None:
        delay = int(self.query.get("delay", 1))
        self.send(
            "ready", session="s", model="fake", chunk_ms=240, delays=[0, 1, 2], delay=delay, rate=self.rate
        )

    def progress(self, seconds: float) -> None:
        self.send("progress", time=seconds)

    def receive(self, seconds: float) -> bool:
        """Read sound up to `seconds`; False if the page has finished before."""
        while self.samples < seconds * self.rate and not self.finished:
            message = self.socket.recv(timeout=PATIENCE)
            if isinstance(message, str):
                self.finished = json.loads(message) == {"type": "finish"}
                continue
            assert len(message) % 2 == 0
            self.samples += len(message) // 2
        return not self.finished

    def receive_all(self) -> None:
        while self.receive(self.samples / self.rate + 1):
            pass

    def vanish(self) -> None:
        """Break the connection without a farewell."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)

    def refuse(self, code: str, close: int) -> None:
        self.send("error", code=code, message=f"no: {code}")
        self.socket.close(close)


def word(text: str, start: float, end: float, confidence: float = 0.9) -> dict[str, object]:
    return {"word": text, "start": start, "end": end, "confidence": confidence}


class FakeServer:
    """with FakeServer(script) as url: ...; `clients` are those that came, `script` may be exchanged."""

    def __init__(self, script: Script, **info: object) -> None:
        self.script, self.info = script, {**INFO, **info}
        self.clients: list[Client] = []

    def _http(self, socket: ServerConnection, request: Request) -> Response | None:
        path = urlsplit(request.path).path
        if path == "/v1/stream":
            return None
        if path == "/v1/info":
            return _response(HTTPStatus.OK, json.dumps(self.info).encode(), "application/json")
        file = WEB / (path.strip("/") or "index.html")
        if file.parent != WEB or not file.is_file():
            return _response(HTTPStatus.NOT_FOUND, b"", "text/plain")
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return _response(HTTPStatus.OK, file.read_bytes(), kind)

    def _socket(self, socket: ServerConnection) -> None:
        client = Client(socket)
        self.clients.append(client)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            self.script(client)

    def __enter__(self) -> FakeServer:
        self._server = serve(self._socket, "127.0.0.1", 0, process_request=self._http, compression=None)
        self.port = self._server.socket.getsockname()[1]
        self.url = f"http://localhost:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()


def _response(status: HTTPStatus, body: bytes, kind: str) -> Response:
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)
