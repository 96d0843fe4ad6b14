"""/v1/realtime: the transcription protocol of OpenAI's Realtime API, and vLLM's dialect of it.

A connection is a conversation of turns. A turn ends where the speaker pauses, or where the client commits it.
Errors of a client are answered and the connection goes on, as these protocols have it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from dataclasses import replace
from typing import Any

import numpy as np
from starlette.websockets import WebSocket

from .. import g711
from ..audio import SAMPLE_RATE
from .batcher import Session
from .plain import read_options
from .realtime_config import Config, update
from .realtime_turns import Messages, OpenAITurns, Turns, VllmTurns
from .service import Service, error_response
from .settings import Refused
from .sockets import Gone, Socket, both
from .values import base64_bytes, check_language

# vLLM's protocol has no other rate
VLLM_RATE = SAMPLE_RATE
# clients that hold a key in a subprotocol expect this one to be chosen
SUBPROTOCOL = "realtime"


async def realtime(websocket: WebSocket) -> None:
    """One connection, from handshake to close."""
    service: Service = websocket.app.state.service
    if not await service.let_in(websocket):
        return
    try:
        service.check(websocket)
    except Refused as refused:
        service.note_refusal(refused)
        await websocket.send_denial_response(error_response(refused))
        return
    chosen = SUBPROTOCOL if SUBPROTOCOL in websocket.scope.get("subprotocols", ()) else None
    await websocket.accept(subprotocol=chosen)
    connection = Connection(Socket(websocket, service.settings), service)
    try:
        check_language(websocket.query_params.get("language"), service.recognizer.model.language)
        asked = read_options(websocket.query_params)
        config = Config(
            delay=asked.delay,
            numbers=asked.numbers,
            hotwords=tuple(asked.hotwords),
            hotwords_strength=asked.hotwords_strength,
        )
        connection.open(config)
    except Refused as refused:
        service.note_refusal(refused)
        await connection.fail(refused)
        return
    await connection.run(websocket)


class Connection:
    """One client. Its session lasts for a turn that it commits itself, else for as long as it stays."""

    def __init__(self, socket: Socket, service: Service) -> None:
        self._socket, self._service = socket, service
        self._id = f"sess_{secrets.token_hex(10)}"
        self._numbers = itertools.count(1)
        self._config = Config()
        self._turns: Turns = OpenAITurns()
        self._current: Session | None = None
        # seconds of audio before the present session
        self._offset = 0.0
        # set while the present session has not been told to finish a turn
        self._going = asyncio.Event()
        self._going.set()

    @property
    def _session(self) -> Session:
        assert self._current is not None, "open() comes first"
        return self._current

    def open(self, config: Config) -> None:
        """A session with this config, in the place of the one before. Raises Refused."""
        before = self._current
        self._current = self._service.batcher.open(config.options(), "realtime", instead_of=before)
        self._config = config
        if before is not None:
            self._offset += before.seconds

    async def run(self, websocket: WebSocket) -> None:
        first = self._session
        try:
            with self._service.session(first, websocket, lambda: self._offset + self._session.seconds):
                await self._send(self._describe("session.created"))
                await both(self._read(), self._write())
                if self._session.stopped:
                    raise self._session.stopped
                await self._socket.close()
        except Refused as refused:
            await self.fail(refused)
        finally:
            self._session.close()

    async def fail(self, refused: Refused, event_id: str | None = None) -> None:
        """An error, and the close that goes with it."""
        if refused.code != "too_slow":
            try:
                await self._send(self._error(refused, event_id))
            except (Gone, Refused):
                return
        await self._socket.close(refused.close_code, refused.message)

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send({"event_id": f"event_{next(self._numbers)}", **message})

    async def _send_all(self, messages: Messages) -> None:
        for message in messages:
            await self._send(message)

    def _error(self, refused: Refused, event_id: str | None) -> dict[str, Any]:
        kind = "invalid_request_error" if refused.status < 500 else "server_error"
        details = {"type": kind, "code": refused.code, "message": refused.message, "param": None}
        return {"type": "error", "error": details | {"event_id": event_id}}

    def _describe(self, event: str) -> dict[str, Any]:
        model = self._service.recognizer.model.name
        session: dict[str, Any] = {
            "id": self._id,
            "object": "realtime.transcription_session",
            "type": "transcription",
        }
        if event.startswith("transcription_session"):
            session |= self._config.describe_flat(model)
        else:
            session["audio"] = {"input": self._config.describe(model)}
        # vLLM's clients look for these outside
        return {"type": event, "session": session, "id": self._id, "created": int(time.time())}

    async def _read(self) -> None:
        while True:
            try:
                message = await self._socket.receive()
            except Refused as refused:
                if refused.code == "too_large":
                    await self._send(self._error(refused, None))
                    continue
                # what it did say is still answered
                self._session.finish(refused)
                return
            # the end of a turn is being answered; what comes next belongs to another
            await self._going.wait()
            event_id = None
            try:
                event = parse(message)
                given = event.get("event_id")
                event_id = given[:512] if isinstance(given, str) else None
                await self._handle(event)
            except Refused as refused:
                if refused.code not in ("bad_message", "bad_request"):
                    self._session.finish(refused)
                    return
                await self._send(self._error(refused, event_id))

    async def _handle(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "input_audio_buffer.append":
            await self._session.send(self._audio(event.get("audio")))
        elif kind == "input_audio_buffer.commit":
            await self._commit(event)
        elif kind == "input_audio_buffer.clear":
            self._turns.clear()
            self.open(self._config)
            await self._send({"type": "input_audio_buffer.cleared"})
        elif kind in ("session.update", "transcription_session.update"):
            await self._update(event)
        else:
            raise Refused("bad_request", f"{kind[:80]}: not known to this server, which only transcribes")

    def _audio(self, text: Any) -> bytes | np.ndarray:
        data = base64_bytes(text)
        return data if self._config.encoding == "pcm" else g711.decode(data, self._config.encoding)

    async def _commit(self, event: dict[str, Any]) -> None:
        if isinstance(self._turns, VllmTurns) and not event.get("final"):
            # there it starts the recognition, which here has begun with the first sample
            return
        if not self._session.samples and isinstance(self._turns, OpenAITurns):
            raise Refused("bad_request", "there is no audio to commit")
        await self._send_all(self._turns.commit())
        self._going.clear()
        self._session.finish()

    async def _update(self, event: dict[str, Any]) -> None:
        model = self._service.recognizer.model
        config = update(self._config, event.get("session"), model.language, model.delays)
        to_vllm = "session" not in event and "model" in event
        if to_vllm:
            config = replace(config, rate=VLLM_RATE, encoding="pcm", silence_ms=None, language=None)
        if not config.takes_audio_as(self._config):
            await self._restart(config)
        if to_vllm and not isinstance(self._turns, VllmTurns):
            self._turns = VllmTurns(self._service.recognizer)
        elif not to_vllm and isinstance(self._turns, VllmTurns):
            self._turns = OpenAITurns()
        if isinstance(self._turns, OpenAITurns):
            self._turns.detect, self._turns.proposed_ends = config.silence is not None, config.proposed_ends
        self._config = config
        self._session.set_endpoint_silence(config.silence)
        self._session.set_hotwords(config.hotwords, config.hotwords_strength)
        await self._send(self._describe(f"{event['type']}d"))

    async def _restart(self, config: Config) -> None:
        """Take audio in another way from here on. What came between two turns is recognised before."""
        if not self._session.samples:
            self.open(config)
            return
        detecting = isinstance(self._turns, OpenAITurns) and self._turns.detect
        if self._turns.in_turn or not detecting:
            raise Refused("bad_request", "commit or clear the audio before changing how it is taken")
        self._config = config
        self._going.clear()
        self._session.finish()
        await self._going.wait()

    async def _write(self) -> None:
        while True:
            session = self._session
            async for events in session.events():
                for event in events:
                    # a turn that was thrown away has nothing more to say
                    if session is self._session:
                        await self._send_all(self._turns.receive(event, self._offset))
                        self._service.note_sent(session, event)
            if session is not self._session:
                continue
            await self._send_all(self._turns.complete(self._offset + session.seconds))
            if session.stopped:
                return
            self.open(self._config)
            self._going.set()


def parse(message: str | bytes) -> dict[str, Any]:
    """A client's event: an object with a `type`. Raises Refused."""
    try:
        event = json.loads(message) if isinstance(message, str) else None
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise Refused("bad_message", "a message must be a JSON object with a type")
    return event
