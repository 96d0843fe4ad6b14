"""A WebSocket with time limits on both sides, for all protocols that run over one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from .settings import Refused, Settings


class Gone(Exception):
    """The client has left."""


class Socket:
    """Receives with an idle limit, sends with one too; JSON out."""

    def __init__(self, websocket: WebSocket, settings: Settings) -> None:
        self.websocket, self._settings = websocket, settings

    async def receive(self) -> str | bytes:
        """The next message. Raises Gone; Refused("idle") if none comes in time, Refused("too_large")."""
        try:
            message = await asyncio.wait_for(self.websocket.receive(), self._settings.idle_seconds)
        except asyncio.TimeoutError:
            seconds = self._settings.idle_seconds
            raise Refused("idle", f"nothing has come for {seconds:g} s") from None
        except WebSocketDisconnect:
            raise Gone from None
        if message["type"] == "websocket.disconnect":
            raise Gone
        data = message.get("bytes")
        content: str | bytes = data if data is not None else message.get("text") or ""
        limit = self._settings.message_bytes
        if len(content) > limit:
            raise Refused("too_large", f"a message may hold {limit} bytes; cut the audio into shorter ones")
        return content

    async def send(self, fields: dict[str, Any]) -> None:
        """Raises Gone; Refused("too_slow") where the client does not read."""
        # in ASCII: what is quoted of a client's message may hold half a surrogate pair, which is no UTF-8
        await self._timed(self.websocket.send_text(json.dumps(fields)))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Never raises: whoever is not there any more needs no farewell."""
        with contextlib.suppress(Gone, Refused):
            await self._timed(self.websocket.close(code, reason[:100]))

    async def _timed(self, what: Coroutine[Any, Any, None]) -> None:
        try:
            await asyncio.wait_for(what, self._settings.send_seconds)
        except asyncio.TimeoutError:
            raise Refused("too_slow", "the client does not read what it is sent") from None
        except (WebSocketDisconnect, RuntimeError, OSError):
            raise Gone from None


async def both(reading: Coroutine[Any, Any, None], writing: Coroutine[Any, Any, None]) -> None:
    """Run both until the writer is done, or either fails; what failed first is raised."""
    reader, writer = asyncio.ensure_future(reading), asyncio.ensure_future(writing)
    try:
        await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        if reader.done() and not reader.cancelled() and reader.exception() is None:
            await asyncio.wait({writer})
        for task in (reader, writer):
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error
    finally:
        for task in (reader, writer):
            task.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)
