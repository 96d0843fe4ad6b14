"""What no client sends, over both socket protocols: an answer or a close, and the next speaker is understood."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from fake_model import speech
from fuzzing import FINDINGS, LENGTHS, altered, damaged, odd_value, rounds, shown
from serving import Running, pcm
from test_serve_faults import is_well
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from speech_reallm import Recognizer

AUDIO = pcm(speech(0.6))
AUDIO_24 = pcm(speech(0.6, rate=24000))
DETECTION = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 300}
TRANSCRIPTION = {"model": "default", "language": "en", "prompt": "names: Alice"}
INPUT = {
    "format": {"type": "audio/pcm", "rate": 24000}, "transcription": TRANSCRIPTION, "turn_detection": DETECTION,
    "noise_reduction": {"type": "near_field"},
}  # fmt: skip
FLAT = {
    "input_audio_format": "pcm16", "input_audio_transcription": TRANSCRIPTION, "turn_detection": DETECTION,
    "include": ["item.input_audio_transcription.logprobs"],
}  # fmt: skip
APPEND = {"type": "input_audio_buffer.append", "audio": base64.b64encode(AUDIO_24).decode()}
# what clients do send
GOOD: dict[str, list[Any]] = {
    "/v1/stream": [
        AUDIO, AUDIO[:3201], b"", {"type": "finish"}, {"type": "hotwords", "terms": ["Alice", "Bob"], "strength": 2.0},
    ],
    "/v1/realtime": [
        APPEND, {"type": "input_audio_buffer.commit", "event_id": "e1"}, {"type": "input_audio_buffer.clear"},
        {"type": "session.update", "session": {"type": "transcription", "audio": {"input": INPUT}}},
        {"type": "transcription_session.update", "session": FLAT}, {"type": "session.update", "model": "default"},
        {"type": "input_audio_buffer.commit", "final": True}, {"type": "response.create"}, AUDIO,
    ],
}  # fmt: skip
QUERY = {
    "rate": "16000", "endpoint_ms": "300", "progress_ms": "200", "language": "en", "delay": "1",
    "intent": "transcription",
    "model": "default", "numbers": "words", "hotwords": "Alice",
}  # fmt: skip


def check(server: Running, path: str, messages: list[bytes | str], raw: bytes = b"") -> None:
    """Send everything; what comes back is JSON with a type, and no fault of the server."""
    try:
        connection = connect(
            f"ws://127.0.0.1:{server.port}{path}",
            compression=None,
            ping_interval=None,
            open_timeout=60,
            close_timeout=5,
        )
    except InvalidStatus as refused:
        assert refused.response.status_code < 500
        return
    answers = []
    with connection, contextlib.suppress(ConnectionClosed, ConnectionError):
        for message in messages:
            connection.send(message)
            with contextlib.suppress(TimeoutError):
                while True:
                    answers.append(connection.recv(0.002))
        if raw:
            connection.socket.sendall(raw)
        with contextlib.suppress(TimeoutError):
            while True:
                answers.append(connection.recv(0.05))
    # 1011: an exception that nobody caught
    assert connection.close_code != 1011
    for answer in answers:
        fields = json.loads(answer)
        assert isinstance(fields["type"], str)
        error = fields.get("error")
        assert fields.get("code") != "internal"
        assert not isinstance(error, dict) or error["code"] != "internal"


def no_faults(caplog: pytest.LogCaptureFixture) -> None:
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_findings(server: Running, recognizer: Recognizer, caplog: pytest.LogCaptureFixture) -> None:
    """`path`, and `messages`: JSON as it was sent."""
    files = sorted((FINDINGS / "sockets").glob("*.json"))
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))
        shown(file.name, lambda found=found: check(server, found["path"], found["messages"]))
        no_faults(caplog)
    assert files
    is_well(server, recognizer)


@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("path", GOOD)
def test_broken_messages(
    path: str,
    seconds: float | None,
    server: Running,
    recognizer: Recognizer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for chance in rounds(seconds, 40):
        query = dict(chance.sample(list(QUERY.items()), chance.randrange(4)))
        if chance.random() < 0.4 and query:
            query[chance.choice(list(query))] = str(odd_value(chance))
        url = path + "?" + "&".join(f"{k}={quote(v, errors='replace')}" for k, v in query.items())
        messages = [broken(chance.choice(GOOD[path]), chance) for _ in range(chance.randrange(1, 8))]
        raw = chance.randbytes(chance.randrange(1, 200)) if chance.random() < 0.1 else b""
        given = (url, messages, raw)
        shown(given, lambda given=given: check(server, *given))
        no_faults(caplog)
    is_well(server, recognizer)


def broken(message: Any, chance: Random) -> bytes | str:
    """A message as bytes or text, mostly changed."""
    kind = chance.randrange(6)
    if isinstance(message, bytes):
        return damaged(message, chance) if kind else message
    if kind == 0:
        return json.dumps(message)
    if kind == 1:
        return damaged(json.dumps(message).encode(), chance).decode("utf-8", "replace")
    if kind == 2:
        # text as bytes
        return json.dumps(altered(message, chance)).encode()
    for _ in range(chance.choice((1, 1, 3))):
        message = altered(message, chance)
    return json.dumps(message)
