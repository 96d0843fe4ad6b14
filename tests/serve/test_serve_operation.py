"""How a server is run: ready or not, its status, TLS, origins as people type them, greeting and logs."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_model import speech
from serving import PATIENCE, Running, open_socket, pcm, say
from test_serve_plain import AUDIO, events_of
from websockets.exceptions import ConnectionClosed, InvalidStatus

from speech_reallm import Recognizer
from speech_reallm.cli import main as cli
from speech_reallm.errors import UserError
from speech_reallm.serve.guard import read_origin
from speech_reallm.serve.server import tls_context


def get(url: str, context: ssl.SSLContext | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE, context=context) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_ready_until_full_or_going_down(start: Callable[..., Running]) -> None:
    server = start(sessions=1, drain_seconds=2.0)
    assert get(f"{server.url}/ready") == (200, {"ready": True})
    with server.socket() as client:
        client.receive()
        code, body = get(f"{server.url}/ready")
        assert (code, body["ready"], body["reason"]) == (503, False, "busy")
        # it is alive nevertheless
        assert get(f"{server.url}/health")[0] == 200
        assert say(client, AUDIO)[1] == 1000
    until = time.monotonic() + PATIENCE
    while get(f"{server.url}/ready")[0] != 200:
        assert time.monotonic() < until
    server.call(lambda: setattr(server.service.batcher, "draining", True))
    assert get(f"{server.url}/ready")[1]["reason"] == "draining"
    assert get(f"{server.url}/health")[0] == 503


def test_status(start: Callable[..., Running]) -> None:
    server = start(sessions=7)
    code, before = get(f"{server.url}/v1/status")
    assert code == 200 and before["chunk_latency_seconds"] == {"p50": None, "p95": None}
    with server.socket() as client:
        client.receive()
        client.send(AUDIO)
        while client.receive()["type"] != "final":
            pass
        status = get(f"{server.url}/v1/status")[1]
        assert (status["status"], status["sessions"], status["capacity"]) == ("ok", 1, 7)
        assert status["sessions_by_kind"] == {"stream": 1}
        latency = status["chunk_latency_seconds"]
        assert 0 < latency["p50"] <= latency["p95"] and status["real_time_factor"] > 0
        assert status["event_loop_lag_seconds"] >= 0 and status["uptime_seconds"] >= 0
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        assert b"reallm_event_loop_lag_seconds" in answer.read()


def test_a_late_event_loop_shows(start: Callable[..., Running]) -> None:
    server = start()
    server.call(lambda: time.sleep(1.5))
    until = time.monotonic() + PATIENCE
    while server.service.metrics.loop_lag < 0.5:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("typed", "allowed"),
    [
        ("https://app.example.org", ["https://app.example.org"]),
        (" https://APP.Example.org/ ", ["https://app.example.org"]),
        ("https://app.example.org:443", ["https://app.example.org"]),
        ("http://app.example.org:80/", ["http://app.example.org"]),
        ("http://localhost:3000", ["http://localhost:3000"]),
        ("localhost:3000", ["https://localhost:3000", "http://localhost:3000"]),
        ("app.example.org", ["https://app.example.org", "http://app.example.org"]),
        ("http://[::1]:8080", ["http://[::1]:8080"]),
        ("https://b\u00fccher.example", ["https://xn--bcher-kva.example"]),
        ("*", ["*"]),
    ],
)
def test_origins_as_people_type_them(typed: str, allowed: list[str]) -> None:
    assert list(read_origin(typed)) == allowed


@pytest.mark.parametrize(
    "typed",
    ["https://a.example/page", "https://*.example", "https://a:99999", "https://", "", "a b", "https://u@a"],
)
def test_what_is_no_origin_is_refused_at_the_start(
    typed: str, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError):
        read_origin(typed)
    assert cli.main(["serve", "--model", str(model_folder), "--port", "0", "--origin", typed]) == 2
    error = capsys.readouterr().err
    assert "--origin" in error and error.count("\n") == 1


def test_the_servers_own_page_in_any_spelling(start: Callable[..., Running]) -> None:
    server = start(origins=read_origin("HTTPS://Good.example:443/"))
    for origin in ("https://good.example", f"HTTP://127.0.0.1:{server.port}"):
        with server.socket(origin=origin) as client:
            assert client.receive()["type"] == "ready"
    for origin in ("http://good.example", "https://good.example:444", f"http://127.0.0.1:{server.port + 1}"):
        with pytest.raises(InvalidStatus), server.socket(origin=origin):
            pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A throw-away authority, and what it gave to localhost: certificate and key."""
    trustme = pytest.importorskip("trustme")
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    paths = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    authority.cert_pem.write_to_path(str(paths[0]))
    issued.private_key_pem.write_to_path(str(paths[2]))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(paths[1]), append=True)
    return paths


def test_tls(recognizer: Recognizer, certificate: tuple[Path, Path, Path]) -> None:
    authority, cert, key = certificate
    server = Running(recognizer, tls=tls_context(str(cert), str(key)))
    try:
        context = ssl.create_default_context(cafile=str(authority))
        url = f"https://127.0.0.1:{server.port}"
        assert get(f"{url}/health", context)[0] == 200
        with open_socket(f"wss://127.0.0.1:{server.port}/v1/stream", ssl=context) as client:
            messages, code = say(client, AUDIO)
        assert code == 1000 and messages[1:] == events_of(recognizer, AUDIO)
        # who does not know the authority does not connect, and who speaks plain HTTP learns nothing
        with pytest.raises(urllib.error.URLError):
            get(f"{url}/health", ssl.create_default_context())
        with pytest.raises((urllib.error.URLError, OSError)):
            get(f"http://127.0.0.1:{server.port}/health")
    finally:
        server.stop()


def test_certificates_that_cannot_be_used(certificate: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, cert, key = certificate
    assert tls_context(None, None) is None
    for files, complaint in (
        ((None, str(key)), "--tls-key needs --tls-cert"),
        (("nowhere.pem", None), "No such file"),
        ((str(cert), None), "cannot use"),
        ((str(key), str(cert)), "cannot use"),
    ):
        with pytest.raises(UserError, match=complaint):
            tls_context(*files)
    both = tmp_path / "both.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    assert tls_context(str(both), None)


def serve(model: Path, *options: str, **how: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "speech_reallm", "serve", "--port", "0", "--model", str(model), *options]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **how)


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_a_person_at_a_terminal_is_greeted(model_folder: Path, tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    file = tmp_path / "server.log"
    process = serve(model_folder, "--log-file", str(file), stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    try:
        while b"ends)" not in shown:
            shown += os.read(ours, 1000)
        url = shown.decode().split()[1]
        assert shown.decode().strip() == f"open {url} (Ctrl-C ends)"
        assert get(f"{url}/health")[0] == 200
        port = int(url.rpartition(":")[2])
        with open_socket(f"ws://127.0.0.1:{port}/v1/stream") as client:
            assert say(client, pcm(speech(1)))[1] == 1000
        process.terminate()
        assert process.wait(PATIENCE) == 0
        with contextlib.suppress(OSError):
            while more := os.read(ours, 1000):
                shown += more
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"{" not in shown and shown.decode().count("\n") == 2
    events = [json.loads(line)["event"] for line in file.read_text().splitlines()]
    assert events[0] == "listening" and "session closed" in events and events[-1] == "drained"


def test_a_log_file_that_cannot_be_written(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--model", str(model_folder), "--log-file", "/nowhere/at/all.log"]) == 2
    assert "--log-file" in capsys.readouterr().err


def test_a_session_is_a_span(start: Callable[..., Running]) -> None:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from speech_reallm.serve.tracing import OpenTelemetry

    exporter = memory.InMemorySpanExporter()
    server = start()
    server.service.tracing = OpenTelemetry(exporter)
    with server.socket() as client:
        assert say(client, AUDIO)[1] == 1000
    with contextlib.suppress(ConnectionClosed), server.socket() as client:
        client.receive()
        client.send("{")
        client.rest()
    server.stop()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["session stream"] * 2
    assert [span.attributes["reallm.end"] for span in spans] == ["ok", "bad_message"]
    assert spans[0].attributes["reallm.audio_seconds"] == pytest.approx(6)
    assert [event.name for event in spans[0].events] == ["first word"] and not spans[1].events
    assert not server.service._spans
    # what was said is nobody's business
    assert not any(word in str(span.attributes) for span in spans for word in ("text", "transcript"))


def test_no_traces_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from speech_reallm.serve import tracing

    for name in tracing._ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert isinstance(tracing.set_up(), tracing._Nothing)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UserError, match="asks for traces, which need"):
        tracing.set_up()
