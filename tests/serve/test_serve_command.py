"""The command, its limits and what surrounds it: options, metrics, headers, logs, example, container."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from fake_model import speech
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import PATIENCE, Running, say
from starlette.datastructures import QueryParams
from test_serve_plain import AUDIO

from speech_reallm import Recognizer
from speech_reallm.cli import main as cli
from speech_reallm.cli.serve import read_keys
from speech_reallm.errors import UserError
from speech_reallm.serve.log import JsonFormatter
from speech_reallm.serve.plain import read_message, read_options
from speech_reallm.serve.realtime import parse
from speech_reallm.serve.realtime_config import Config, update
from speech_reallm.serve.service import error_response
from speech_reallm.serve.settings import CLOSE_CODES, Refused, Settings

ROOT = Path(__file__).parents[2]

# on a busy machine an example may take long
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
FIELDS = [
    *("type", "audio", "input", "format", "rate", "transcription", "language", "delay", "turn_detection"),
    *("silence_duration_ms", "input_audio_format", "input_audio_transcription", "x"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@patient
@given(JSON)
def test_any_session_is_taken_or_refused(session: object) -> None:
    try:
        config = update(Config(), session, "en", (0, 1, 2))
    except Refused as refused:
        assert refused.code == "bad_request" and "\n" not in refused.message
    else:
        # whatever was taken, a stream can be opened with
        assert 8000 <= config.rate <= 192000 and config.delay in (None, 0, 1, 2)
        assert config.silence_ms is None or config.options().endpoint_silence > 0
        json.dumps([config.describe("m"), config.describe_flat("m")])


@patient
@given(JSON.map(json.dumps) | st.text(max_size=50) | st.binary(max_size=50))
def test_any_message_is_taken_or_refused(message: str | bytes) -> None:
    try:
        assert isinstance(parse(message)["type"], str)
    except Refused as refused:
        assert refused.code == "bad_message"
    if isinstance(message, str):
        try:
            assert read_message(message) in ("finish", "keepalive")
        except Refused as refused:
            assert refused.code == "bad_message"


@patient
@given(st.dictionaries(st.sampled_from(["rate", "delay", "endpoint_ms"]), st.text(max_size=12)))
def test_any_query_is_taken_or_refused(query: dict[str, str]) -> None:
    try:
        options = read_options(QueryParams(query))
    except Refused as refused:
        assert refused.code == "bad_request"
    else:
        assert 8000 <= options.rate <= 192000


def test_every_code_is_documented() -> None:
    page = (ROOT / "docs/websocket.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d{4}) \|", page, re.MULTILINE))
    assert rows == {name: str(code) for name, code in CLOSE_CODES.items()}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--host", "256.1.1.1"], "no address"),
        (["--port", "70000"], "--port must be"),
        (["--port", "-1"], "--port must be"),
        (["--sessions", "0"], "sessions must be at least 1"),
        (["--idle", "nan"], "idle_seconds"),
        (["--api-key-file", os.devnull], "holds no keys"),
        (["--api-key-file", "nowhere"], "cannot read the keys"),
        (["--delay", "9"], "delay"),
    ],
)
def test_what_cannot_be_served(
    model_folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    assert cli.main(["serve", "--model", str(model_folder), *options]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


def test_a_port_that_is_taken(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", "--model", str(model_folder), "--port", port]) == 2
    assert "try another --port" in capsys.readouterr().err


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REALLM_API_KEY", raising=False)
    assert read_keys(None) == ()
    file = tmp_path / "keys"
    file.write_text("# for whom\nfirst\n\n second \n")
    monkeypatch.setenv("REALLM_API_KEY", "third")
    assert read_keys(str(file)) == ("third", "first", "second")
    with pytest.raises(UserError, match="ASCII"):
        Settings(keys=("schl\u00fcssel",))


def test_metrics_health_and_info(start: Callable[..., Running], recognizer: Recognizer) -> None:
    server = start()
    with server.socket() as client:
        say(client, AUDIO)
    text = get(server, "/metrics")
    figures = dict(re.findall(r"^(reallm_\w+(?:\{.*\})?) (.*)$", text, re.MULTILINE))
    assert float(figures["reallm_audio_seconds_total"]) == pytest.approx(6)
    assert float(figures["reallm_chunk_latency_seconds_count"]) >= 6 / recognizer.model.chunk_seconds
    assert float(figures["reallm_real_time_factor"]) > 0
    assert figures['reallm_sessions_opened_total{kind="stream"}'] == "1.0"
    assert {"reallm_sessions", "reallm_queue_depth"} <= set(figures)
    assert json.loads(get(server, "/health"))["status"] == "ok"
    info = json.loads(get(server, "/v1/info"))
    assert info["models"] == ["fake"] and info["limits"]["sessions"] == 64 and info["delays"] == [0, 1, 2]


def get(server: Running, path: str) -> str:
    with urllib.request.urlopen(server.url + path) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        return answer.read().decode()


def test_the_page_is_served(server: Running) -> None:
    page = get(server, "/")
    for name in re.findall(r'(?:src|href)="([\w./-]+\.(?:js|css|svg))"', page):
        assert get(server, f"/{name.lstrip('/')}")


def test_what_is_not_there(server: Running) -> None:
    for path in ("/v1/nothing", "/..%2f..%2fsettings.py", "/settings.py"):
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(server.url + path)
        with missing.value as answer:
            assert answer.code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/nothing.js", 404, "not_found"),
        ("POST", "/v1/chat/completions", 404, "not_found"),
        ("POST", "/nothing", 404, "not_found"),
        ("POST", "/app.js", 405, "method_not_allowed"),
        ("GET", "/v1/audio/transcriptions", 405, "method_not_allowed"),
        ("GET", "/v1/audio/transcriptions/", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("PUT", "/v1/models/fake", 405, "method_not_allowed"),
        ("GET", "/v1/models/whisper-1", 404, "model_not_found"),
        ("GET", "/v1/realtime", 426, "bad_request"),
        ("GET", "/v1/models/fake", 200, None),
        ("GET", "/v1/models/default", 200, None),
        ("GET", "/v1//models/", 200, None),
    ],
)
def test_every_answer_is_json(server: Running, method: str, path: str, status: int, code: str | None) -> None:
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    link.request(method, path)
    answer = link.getresponse()
    fields = json.loads(answer.read())
    link.close()
    assert answer.status == status and answer.getheader("content-type") == "application/json"
    if code:
        assert fields["error"]["code"] == code and "\n" not in fields["error"]["message"]
    else:
        assert fields.get("id", fields.get("data", [{}])[0].get("id")) == "fake"
    if status == 405:
        assert answer.getheader("allow")


def test_browsers_ask_whether_the_page_has_changed(server: Running) -> None:
    for path in ("/", "/app.js", "/v1/info"):
        with urllib.request.urlopen(server.url + path) as answer:
            assert answer.headers["Cache-Control"] == "no-cache"


def test_an_idle_session_has_no_state(start: Callable[..., Running]) -> None:
    server = start()
    with server.socket() as client:
        client.receive()
        (session,) = server.service.batcher._sessions
        assert session._stream is None
        client.send(AUDIO[:4000])
        client.send({"type": "finish"})
        client.rest()
        assert session._stream is None


def test_the_log_is_json() -> None:
    record = logging.makeLogRecord({"msg": "a %s", "args": ("b",), "levelname": "INFO", "session": "s-1"})
    line = json.loads(JsonFormatter().format(record))
    assert (line["event"], line["level"], line["session"]) == ("a b", "info", "s-1")
    assert set(line) == {"time", "level", "event", "session"}


def test_errors_have_the_shape_of_openai() -> None:
    answer = error_response(Refused("busy", "full"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert json.loads(bytes(answer.body))["error"]["code"] == "busy"


def test_the_example_client(server: Running, recognizer: Recognizer, tmp_path: Path) -> None:
    audio = speech(4, rate=24000)
    file = tmp_path / "talk.wav"
    soundfile.write(file, audio, 24000, subtype="PCM_16")
    environment = os.environ | {
        "REALLM_SERVER": f"ws://127.0.0.1:{server.port}",
        "REALLM_PACE": "0",
        "PYTHONIOENCODING": "utf-8",
    }
    command = [sys.executable, str(ROOT / "examples/asyncio_client.py"), str(file)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    stream = recognizer.stream(24000)
    stream.feed(soundfile.read(file, dtype="int16")[0])
    assert done.stdout.split() == stream.finish().text.split() != []


def test_the_container_runs_what_there_is() -> None:
    lines = (ROOT / "Containerfile").read_text(encoding="utf-8")
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", lines, re.MULTILINE)[1])
    assert cli._parser().parse_args(entry[1:]).verb.NAME == "serve"
    assert re.search(r"^USER (?!root)", lines, re.MULTILINE) and "HEALTHCHECK" in lines
    unit = (ROOT / "examples/reallm.service").read_text(encoding="utf-8")
    command = re.search(r"^ExecStart=\S+/reallm (.*)$", unit, re.MULTILINE)[1]
    assert cli._parser().parse_args(command.split()).verb.NAME == "serve"
