"""What goes wrong on networks and in clients, and what it must not do: to the server, and to others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import websockets
from fake_model import speech
from serving import PATIENCE, Client, Running, open_socket, pcm, say, text_of
from test_serve_plain import AUDIO, events_of
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosed

from speech_reallm import Final, Recognizer
from speech_reallm.serve.plain import to_json


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what the other side of a connection will bring about."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def is_well(server: Running, recognizer: Recognizer) -> None:
    """Nobody is left, and the next speaker is understood."""
    eventually(lambda: server.service.batcher.sessions == 0)
    with server.socket() as client:
        messages, code = say(client, AUDIO)
    assert code == 1000 and messages[1:] == events_of(recognizer, AUDIO)
    eventually(lambda: server.service.batcher.sessions == 0)


def reset(client: Client) -> None:
    """Vanish: no close frame, no FIN; the kernel sends a reset."""
    linger = (1).to_bytes(4, "little") + bytes(4)
    client.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.connection.socket.close()


def test_a_client_vanishes_in_the_middle_of_a_word(
    start: Callable[..., Running], recognizer: Recognizer
) -> None:
    server = start()
    with server.socket() as other:
        other.send(AUDIO[:50000])
        with contextlib.suppress(ConnectionClosed, OSError), server.socket() as client:
            client.send(AUDIO)
            while client.receive()["type"] != "partial":
                pass
            reset(client)
        # whoever shares batches with it notices nothing
        messages, code = say(other, AUDIO[50000:])
    assert code == 1000 and messages[1:] == events_of(recognizer, AUDIO)
    is_well(server, recognizer)


def test_a_half_open_socket_is_given_up(start: Callable[..., Running], recognizer: Recognizer) -> None:
    """The client's machine is gone: no audio, no answer to pings, no end of the connection."""
    server = start(ping_seconds=0.1, idle_seconds=0.5)
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as raw:
        handshake(raw)
        eventually(lambda: server.metric("reallm_sessions_opened_total", kind="stream") == 1)
        eventually(lambda: server.service.batcher.sessions == 0)
    assert server.metric("reallm_failed_total", reason="idle") == 1


def test_a_late_answer_to_a_ping_is_no_fault(start: Callable[..., Running], recognizer: Recognizer) -> None:
    """It comes behind audio that waits to be recognised."""
    server = start(ping_seconds=0.05, buffer_seconds=0.5)
    with server.socket() as client:
        messages, code = say(client, AUDIO * 5)
    assert code == 1000 and messages[1:] == events_of(recognizer, AUDIO * 5)


def handshake(raw: socket.socket, path: str = "/v1/stream") -> None:
    raw.sendall(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += raw.recv(1)
    assert answer.startswith(b"HTTP/1.1 101")


def header(opcode: int, length: int) -> bytes:
    """Of a final, masked frame; the mask is zeros."""
    return bytes([0x80 | opcode, 0xFF]) + length.to_bytes(8, "big") + bytes(4)


@pytest.mark.parametrize(
    "sent",
    [
        os.urandom(5000),
        # not masked, reserved bits, an opcode that is none, a continuation of nothing, a long ping
        b"\x82\x02\0\0",
        b"\xf2\x80\0\0\0\0",
        b"\x8b\x80\0\0\0\0",
        b"\x80\x80\0\0\0\0",
        header(9, 5000) + bytes(5000),
        # text that is no UTF-8
        b"\x81\x81\0\0\0\0\xff",
        # 100 MB are announced, and 2**63
        header(2, 100 << 20) + bytes(1 << 20),
        header(2, 1 << 63),
        # a message without an end, in fragments
        b"\x02\x80\0\0\0\0" + (b"\x00\xfe\xff\xff\0\0\0\0" + bytes(65535)) * 400,
    ],
    ids=[
        "noise",
        "unmasked",
        "reserved",
        "opcode",
        "continuation",
        "ping",
        "utf8",
        "100MB",
        "2**63",
        "fragments",
    ],
)
def test_garbage_frames(server: Running, recognizer: Recognizer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as raw:
        handshake(raw)
        with contextlib.suppress(OSError):
            raw.sendall(sent)
        # the server ends it; an empty answer is its end
        with contextlib.suppress(ConnectionResetError):
            while raw.recv(65536):
                pass
    is_well(server, recognizer)


def test_a_large_message_gets_its_code(start: Callable[..., Running]) -> None:
    server = start(message_bytes=1000)
    with server.socket() as client:
        client.receive()
        client.send(bytes(1002))
        assert client.rest()[1] == 1009


def test_the_wrong_rate_is_only_ones_own_nonsense(server: Running, recognizer: Recognizer) -> None:
    with server.socket("/v1/stream?rate=192000") as client:
        assert say(client, AUDIO)[1] == 1000
    is_well(server, recognizer)


def test_bursts_of_connects(start: Callable[..., Running], recognizer: Recognizer) -> None:
    server = start(sessions=20, per_minute=0)

    async def visit(n: int) -> None:
        url = f"ws://127.0.0.1:{server.port}/v1/stream"
        async with websockets.connect(url, compression=None, open_timeout=PATIENCE, ping_interval=None) as ws:
            if n % 3 == 0:
                await ws.send(AUDIO[:20000])
            if n % 2 == 0:
                ws.transport.abort()
            elif n % 5 == 0:
                await ws.recv()

    async def visits() -> list[BaseException | None]:
        return await asyncio.gather(*(visit(n) for n in range(200)), return_exceptions=True)

    outcomes = asyncio.run(visits())
    # refused with 1013, perhaps, but never left without an answer
    assert all(o is None or isinstance(o, ConnectionClosed) for o in outcomes), outcomes
    is_well(server, recognizer)


def talk_on(raw: socket.socket) -> None:
    """Send speech for as long as the connection lasts."""
    with contextlib.suppress(OSError):
        while True:
            raw.sendall(header(2, len(AUDIO)) + AUDIO)


def test_a_slow_reader_waits_for_itself_alone(
    start: Callable[..., Running], recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # small buffers on the way, lest all of the answers fit in
    connection_made = WebSocketsSansIOProtocol.connection_made

    def small(protocol: WebSocketsSansIOProtocol, transport: asyncio.Transport) -> None:
        connection_made(protocol, transport)
        transport.set_write_buffer_limits(high=1024)

    monkeypatch.setattr(WebSocketsSansIOProtocol, "connection_made", small)
    server = start(outbox=2, buffer_seconds=1.0, send_seconds=1.0)
    server.server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as raw:
        # before the connection is made: a buffer that shrinks below the window already promised drops what
        # comes, acknowledgements with it, and then nothing goes either way
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        raw.settimeout(PATIENCE)
        raw.connect(("127.0.0.1", server.port))
        handshake(raw)
        # it never reads and talks on until it is cut off, however slow the machine; others are served
        threading.Thread(target=talk_on, args=(raw,), daemon=True).start()
        with server.socket() as other:
            messages, code = say(other, AUDIO)
        assert code == 1000 and messages[1:] == events_of(recognizer, AUDIO)
        eventually(lambda: server.metric("reallm_failed_total", reason="too_slow") == 1)
    is_well(server, recognizer)


def test_one_who_sends_fast_does_not_delay_others(
    start: Callable[..., Running], recognizer: Recognizer
) -> None:
    server = start(batch=1)
    with server.socket() as fast, server.socket() as live:
        live.receive()
        sender = threading.Thread(target=lambda: flood(fast), daemon=True)
        sender.start()
        eventually(lambda: server.metric("reallm_audio_seconds_total") > 1)
        before = server.metric("reallm_audio_seconds_total")
        messages, _ = say(live, AUDIO)
        assert text_of(messages) == text_of(events_of(recognizer, AUDIO))
        # turns were taken: both got about as much, not the fast one all of its 600 s first
        assert server.metric("reallm_audio_seconds_total") - before < 60
        with contextlib.suppress(ConnectionClosed, OSError):
            reset(fast)
        sender.join(PATIENCE)


def flood(client: Client) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        for _ in range(100):
            client.send(AUDIO)


def feed(server: Running, parts: Iterable[bytes], kinds: set[str] | None = None) -> tuple[list[dict], int]:
    """Send as fast as it goes; all messages, or those of `kinds`, and the most samples that ever waited."""
    most = 0
    with server.socket() as client:
        received: list[dict] = []

        def read() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    message = client.receive()
                    if kinds is None or message["type"] in kinds:
                        received.append(message)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        for part in parts:
            client.send(part)
            # what waits is bounded, however much is sent
            most = max([most, *(s._pending_samples for s in list(server.service.batcher._sessions))])
        client.send({"type": "finish"})
        reader.join(10 * PATIENCE)
    return received, most


def test_long_audio_as_fast_as_it_goes(start: Callable[..., Running], recognizer: Recognizer) -> None:
    audio = pcm(speech(40, seed=5))
    parts = [audio[begin : begin + 32000] for begin in range(0, len(audio), 32000)]
    received, most = feed(start(buffer_seconds=2.0), parts)
    assert most <= 3 * 16000
    assert received[1:] == events_of(recognizer, audio)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_half_an_hour_in_flat_memory(start: Callable[..., Running], recognizer: Recognizer) -> None:
    server = start()
    audio = pcm(speech(60, seed=5))

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    sizes = []

    def parts() -> Iterator[bytes]:
        for minute in range(30):
            for begin in range(0, len(audio), 32000):
                yield audio[begin : begin + 32000]
            sizes.append(resident())
            print(f"minute {minute}: {sizes[-1] / 1e6:.1f} MB")

    finals, _ = feed(server, parts(), {"final"})
    # the finals, which are kept here, are some kilobytes a minute
    assert sizes[-1] - sizes[4] < 6e6
    stream = recognizer.stream(history=0)
    expected = []
    for begin in range(0, 30 * len(audio), 32000):
        # a minute is a whole number of these
        part = audio[begin % len(audio) : begin % len(audio) + 32000]
        expected += [to_json(e) for e in stream.accept(part) if isinstance(e, Final)]
    expected += [to_json(e) for e in stream.finish().events if isinstance(e, Final)]
    assert finals == expected


def test_a_fault_in_a_batch_ends_only_that_batch(
    start: Callable[..., Running], recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()

    def broken(streams: list) -> list:
        raise RuntimeError("out of memory")

    with server.socket() as waiting, server.socket() as client:
        waiting.receive()
        monkeypatch.setattr(server.service.recognizer, "step", broken, raising=False)
        client.send(AUDIO)
        messages, code = client.rest()
        assert (messages[-1]["code"], code) == ("internal", 1011)
        monkeypatch.undo()
        assert say(waiting, AUDIO)[0][-1]["type"] == "final"
    is_well(server, recognizer)


def test_drain_sends_what_was_heard(start: Callable[..., Running], recognizer: Recognizer) -> None:
    server = start()
    expected = text_of(events_of(recognizer, AUDIO))
    sockets = [server.socket() for _ in range(4)]
    clients = [s.__enter__() for s in sockets]
    for client in clients:
        client.send(AUDIO)
        assert client.receive()["type"] == "ready"
    # all of it has arrived, none of it has been answered in full
    eventually(lambda: sum(s.samples for s in server.service.batcher._sessions) == 4 * len(AUDIO) // 2)
    server.drain()
    for client, opened in zip(clients, sockets, strict=True):
        messages, code = client.rest()
        assert (messages[-1]["code"], code) == ("draining", 1012)
        assert text_of(messages) == expected
        opened.__exit__(None, None, None)
    server.thread.join(PATIENCE)
    assert not server.thread.is_alive()


def test_drain_completes_a_turn(start: Callable[..., Running], recognizer: Recognizer) -> None:
    server = start()
    with server.socket("/v1/realtime") as client:
        audio = pcm(speech(3, rate=24000))
        client.send({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()})
        eventually(lambda: sum(s.samples for s in server.service.batcher._sessions) == len(audio) // 2)
        server.drain()
        messages, code = client.rest()
    assert (messages[-1]["error"]["code"], code) == ("draining", 1012)
    completed = [m["transcript"] for m in messages if m["type"].endswith("transcription.completed")]
    expected = events_of(recognizer, audio, 24000, endpoint_silence=0.5)
    assert completed == [m["text"] for m in expected if m["type"] == "final"] != []


class Process:
    """The command itself, in a process of its own."""

    def __init__(self, model: Path, *options: str) -> None:
        command = [sys.executable, "-m", "speech_reallm", "serve", "--port", "0", "--model", str(model)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, *options], stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
        )
        first = json.loads(self.process.stderr.readline())
        assert first["event"] == "listening", first
        self.port = first["port"]

    def log(self) -> list[dict]:
        """Ends with the process."""
        return [json.loads(line) for line in self.process.communicate(timeout=PATIENCE)[1].splitlines()]


@pytest.fixture
def process(model_folder: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*options: str) -> Process:
        started.append(Process(model_folder, *options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_sigterm_under_load(process: Callable[..., Process], recognizer: Recognizer) -> None:
    one = process()
    expected = text_of(events_of(recognizer, AUDIO))
    url = f"ws://127.0.0.1:{one.port}/v1/stream"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(open_socket(url)) for _ in range(5)]
        for client in clients:
            client.receive()
            client.send(AUDIO)
        for client in clients:
            # the server reads each connection in order: an answer means that its audio has arrived
            assert client.receive()["type"] == "partial"
        one.process.send_signal(signal.SIGTERM)
        for client in clients:
            messages, code = client.rest()
            assert code == 1012 and text_of(messages) == expected
    log = one.log()
    assert one.process.returncode == 0
    events = [line["event"] for line in log]
    assert events.count("session closed") == 5 and "drained" in events
    # what was said is nobody's business unless asked for
    assert not any("text" in line for line in log)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_after_sigkill_one_can_connect_again(process: Callable[..., Process], recognizer: Recognizer) -> None:
    one = process()
    with open_socket(f"ws://127.0.0.1:{one.port}/v1/stream") as client:
        client.send(AUDIO)
        one.process.kill()
        assert client.rest()[1] == 1006
    # at the same port, at once
    again = process("--port", str(one.port), "--log-transcripts")
    with open_socket(f"ws://127.0.0.1:{again.port}/v1/stream") as client:
        assert text_of(say(client, AUDIO)[0]) == text_of(events_of(recognizer, AUDIO))
    with urllib.request.urlopen(f"http://127.0.0.1:{again.port}/health") as answer:
        assert json.loads(answer.read())["status"] == "ok"
    again.process.send_signal(signal.SIGINT)
    log = again.log()
    assert again.process.returncode == 0
    assert " ".join(line["text"] for line in log if line["event"] == "final") == text_of(
        events_of(recognizer, AUDIO)
    )
