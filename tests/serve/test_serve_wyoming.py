"""The Wyoming protocol with its own client, and what a stranger may send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest
from fake_model import speech
from serving import PATIENCE, Running, pcm, text_of
from test_serve_plain import AUDIO, events_of

from speech_reallm import Recognizer
from speech_reallm.cli.serve import read_address
from speech_reallm.errors import UserError
from speech_reallm.serve.settings import Refused

pytest.importorskip("wyoming")

from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping

from speech_reallm.serve.wyoming import hotwords_of, read_samples


@pytest.fixture(scope="module")
def server(recognizer: Recognizer) -> Iterator[Running]:
    running = Running(recognizer, wyoming=True, per_minute=0, idle_seconds=5.0)
    yield running
    running.stop()


def port(server: Running) -> int:
    return server.server._wyoming.port


def talk(server: Running, talking: Callable[[AsyncTcpClient], Awaitable[list[Event]]]) -> list[Event]:
    async def run() -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port(server)) as client:
            return await asyncio.wait_for(talking(client), PATIENCE)

    return asyncio.run(run())


async def say(
    client: AsyncTcpClient, audio: bytes, rate: int = 16000, width: int = 2, channels: int = 1
) -> None:
    form = {"rate": rate, "width": width, "channels": channels}
    await client.write_event(AudioStart(**form).event())
    for begin in range(0, len(audio), 3333):
        await client.write_event(AudioChunk(audio=audio[begin : begin + 3333], **form).event())
    await client.write_event(AudioStop().event())


async def answer(client: AsyncTcpClient, last: str) -> list[Event]:
    events = []
    while not events or events[-1].type != last:
        event = await client.read_event()
        assert event is not None and event.type != "error", event
        events.append(event)
    return events


def test_it_says_what_there_is(server: Running, recognizer: Recognizer) -> None:
    async def ask(client: AsyncTcpClient) -> list[Event]:
        await client.write_event(Describe().event())
        await client.write_event(Ping(text="there?").event())
        return await answer(client, "pong")

    described, pong = talk(server, ask)
    (program,) = Info.from_event(described).asr
    assert program.supports_transcript_streaming and program.installed
    assert (program.models[0].name, program.models[0].languages) == ("fake", ["en"])
    assert pong.data["text"] == "there?"


def test_text_while_it_is_spoken_and_the_whole_at_the_end(server: Running, recognizer: Recognizer) -> None:
    async def two(client: AsyncTcpClient) -> list[Event]:
        events = []
        for _ in range(2):
            await client.write_event(Transcribe(language="en_US").event())
            await say(client, AUDIO)
            events += await answer(client, "transcript-stop")
        return events

    events = talk(server, two)
    expected = text_of(events_of(recognizer, AUDIO, endpoint_silence=None))
    kinds = [event.type for event in events]
    half = len(kinds) // 2
    assert kinds[:half] == kinds[half:]
    assert kinds[0] == "transcript-start" and kinds[half - 2 : half] == ["transcript", "transcript-stop"]
    assert set(kinds[1 : half - 2]) == {"transcript-chunk"}
    assert Transcript.from_event(events[half - 2]).text == expected != ""
    chunks = [TranscriptChunk.from_event(e).text for e in events[:half] if e.type == "transcript-chunk"]
    assert "".join(chunks) == expected


@pytest.mark.parametrize(("width", "channels", "rate"), [(2, 2, 16000), (4, 1, 48000), (1, 1, 8000)])
def test_other_forms_of_audio(
    server: Running, recognizer: Recognizer, width: int, channels: int, rate: int
) -> None:
    samples = speech(3, rate=rate)
    scaled = {
        1: (samples * 127 + 128).round().astype("u1"),
        2: (samples * 32767).astype("<i2"),
        4: (samples.astype(np.float64) * (2**31 - 1)).astype("<i4"),
    }[width]
    data = np.repeat(scaled, channels).tobytes()

    async def one(client: AsyncTcpClient) -> list[Event]:
        await say(client, data, rate, width, channels)
        return await answer(client, "transcript")

    mono, rest = read_samples(data, {"width": width, "channels": channels})
    stream = recognizer.stream(rate, endpoint_silence=None)
    stream.feed(np.ascontiguousarray(mono))
    assert rest == b"" and talk(server, one)[-1].data["text"] == stream.finish().text != ""


def test_nothing_said(server: Running) -> None:
    async def nothing(client: AsyncTcpClient) -> list[Event]:
        await say(client, b"")
        return await answer(client, "transcript")

    assert [e.data["text"] for e in talk(server, nothing)] == [""]


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"{\n",
        b"[]\n",
        b'{"type": 1}\n',
        os.urandom(3000) + b"\n",
        b'{"type": "audio-chunk", "payload_length": 99999999999}\n',
        b'{"type": "audio-chunk", "payload_length": -1}\n',
        b'{"type": "describe", "data_length": 99999999}\n',
        b'{"type": "audio-start", "data": {"rate": 1}}\n',
        b'{"type": "audio-start", "data": []}\n',
        b'{"type": "transcribe", "data": {"language": "de"}}\n',
        b'{"type": "audio-chunk", "data": {"width": 3}, "payload_length": 2}\nxx',
        b"x" * 200000,
    ],
    ids=range(13),
)
def test_what_is_no_event_is_answered_and_ends_the_connection(server: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port(server)), PATIENCE) as raw:
        with contextlib.suppress(OSError):
            raw.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := raw.recv(65536):
                received += part
    # a reset may overtake the answer
    assert not received or json.loads(received.splitlines()[0])["type"] == "error"
    until = time.monotonic() + PATIENCE
    while server.service.batcher.sessions:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_who_hangs_up_or_falls_silent_frees_the_place(start: Callable[..., Running]) -> None:
    server = start(wyoming=True, sessions=1, idle_seconds=0.5)

    def begin(raw: socket.socket) -> None:
        raw.sendall(b'{"type": "audio-start", "data": {"rate": 16000}}\n')
        until = time.monotonic() + PATIENCE
        while not server.service.batcher.sessions:
            assert time.monotonic() < until
            time.sleep(0.01)

    def freed() -> None:
        until = time.monotonic() + PATIENCE
        while server.service.batcher.sessions:
            assert time.monotonic() < until
            time.sleep(0.01)

    with socket.create_connection(("127.0.0.1", port(server)), PATIENCE) as raw:
        begin(raw)
    freed()
    with socket.create_connection(("127.0.0.1", port(server)), PATIENCE) as raw:
        begin(raw)
        answered = b""
        while part := raw.recv(65536):
            answered += part
    assert b"nothing has come" in answered
    freed()


def test_a_full_server_says_so(start: Callable[..., Running]) -> None:
    server = start(wyoming=True, sessions=1)
    with server.socket() as other, socket.create_connection(("127.0.0.1", port(server)), PATIENCE) as raw:
        other.receive()
        raw.sendall(b'{"type": "audio-start", "data": {"rate": 16000}}\n')
        answered = b""
        while part := raw.recv(65536):
            answered += part
    assert b"the server is full" in answered


def test_drain_answers_what_has_come(start: Callable[..., Running], recognizer: Recognizer) -> None:
    server = start(wyoming=True)

    async def leave(client: AsyncTcpClient) -> list[Event]:
        await client.write_event(AudioStart(rate=16000, width=2, channels=1).event())
        await client.write_event(AudioChunk(rate=16000, width=2, channels=1, audio=AUDIO).event())
        while sum(s.samples for s in server.service.batcher._sessions) < len(AUDIO) // 2:
            await asyncio.sleep(0.01)
        server.drain()
        return await answer(client, "transcript")

    text = talk(server, leave)[-1].data["text"]
    assert text == text_of(events_of(recognizer, AUDIO, endpoint_silence=None))
    server.thread.join(PATIENCE)
    assert not server.thread.is_alive()


def test_where_it_listens() -> None:
    assert read_address("10300", "127.0.0.1") == ("127.0.0.1", 10300)
    assert read_address("0.0.0.0:10300", "127.0.0.1") == ("0.0.0.0", 10300)
    assert read_address("[::1]:1", "x") == ("::1", 1)
    for text in ("", "x", "1.2.3.4", "1.2.3.4:x"):
        with pytest.raises(UserError, match=re.escape("--wyoming")):
            read_address(text, "127.0.0.1")


def test_samples_that_are_cut() -> None:
    samples, rest = read_samples(pcm(speech(0.01))[:7], {})
    assert (len(samples), len(rest)) == (3, 1)


def test_names_and_terms_are_hot_words(start: Callable[..., Running], recognizer: Recognizer) -> None:
    async def one(client: AsyncTcpClient) -> list[Event]:
        await client.write_event(Transcribe(transcript_terms=["the weather", "sea"]).event())
        await say(client, AUDIO)
        return await answer(client, "transcript-stop")

    server = start(wyoming=True, per_minute=0)
    events = talk(server, one)
    words = {"hotwords": ["the weather", "sea"], "endpoint_silence": None}
    assert Transcript.from_event(events[-2]).text == text_of(events_of(recognizer, AUDIO, **words))
    assert hotwords_of({"transcript_names": ["Siobhan"], "transcript_terms": ["a b", "c"]}) == (
        "Siobhan",
        "a b",
        "c",
    )
    assert hotwords_of({"transcript_names": None}) == ()
    with pytest.raises(Refused):
        hotwords_of({"transcript_names": [1]})
