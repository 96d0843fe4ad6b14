"""A server in a thread of the test's process, and clients for it."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from speech_reallm import Recognizer
from speech_reallm.serve.server import Server, bind
from speech_reallm.serve.settings import Settings

# how long a test waits for what should come at once, on a busy machine
PATIENCE = 60


class Running:
    """A server that runs; `port`, `service`, and `stop()`, which lets it drain."""

    def __init__(
        self,
        recognizer: Recognizer,
        tls: ssl.SSLContext | None = None,
        wyoming: bool = False,
        **settings: Any,
    ) -> None:
        extra = bind("127.0.0.1", 0) if wyoming else None
        self.server = Server(recognizer, Settings(**settings), bind("127.0.0.1", 0), tls, extra)
        self.port, self.service = self.server.port, self.server.service
        self.started = threading.Event()
        startup = self.server.startup

        async def tell(*args: Any, **kwargs: Any) -> None:
            await startup(*args, **kwargs)
            self.started.set()

        self.server.startup = tell
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        assert self.started.wait(PATIENCE)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def drain(self) -> None:
        """As SIGTERM does."""
        self.server.handle_exit(15, None)

    def stop(self) -> None:
        self.drain()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()

    def call(self, function: Any) -> Any:
        """Run a function in the event loop; returns what it returns."""
        result: list[Any] = []
        done = threading.Event()

        def run() -> None:
            result.append(function())
            done.set()

        self.server._loop.call_soon_threadsafe(run)
        assert done.wait(PATIENCE)
        return result[0]

    def metric(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0

    def socket(self, path: str = "/v1/stream", **options: Any) -> contextlib.AbstractContextManager[Client]:
        return open_socket(f"ws://127.0.0.1:{self.port}{path}", **options)


class Client:
    """A plain WebSocket with JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, message: bytes | dict[str, Any] | str) -> None:
        self.connection.send(json.dumps(message) if isinstance(message, dict) else message)

    def receive(self) -> dict[str, Any]:
        return json.loads(self.connection.recv(PATIENCE))

    def rest(self) -> tuple[list[dict[str, Any]], int]:
        """All messages until the server closes, and the code it closes with."""
        messages = []
        try:
            while True:
                messages.append(self.receive())
        except ConnectionClosed as closed:
            # without a close frame the connection was simply lost
            return messages, closed.rcvd.code if closed.rcvd else 1006


@contextlib.contextmanager
def open_socket(url: str, **options: Any) -> Iterator[Client]:
    options = {
        "compression": None,
        "open_timeout": PATIENCE,
        "ping_interval": None,
        "close_timeout": 2,
    } | options
    with connect(url, **options) as connection:
        yield Client(connection)


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def text_of(messages: list[dict[str, Any]]) -> str:
    return " ".join(m["text"] for m in messages if m["type"] == "final")


def say(client: Client, audio: bytes, portion: int = 6400) -> tuple[list[dict[str, Any]], int]:
    """Send all audio, say that this was it, and collect the answers."""
    # a server that has closed says why in what it has sent
    with contextlib.suppress(ConnectionClosed):
        for start in range(0, len(audio), portion):
            client.send(audio[start : start + portion])
        client.send({"type": "finish"})
    return client.rest()
