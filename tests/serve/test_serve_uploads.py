"""Uploads through the official client, in every format; what is no recording gets a clear answer."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import soundfile
from fake_model import speech
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from serving import PATIENCE, Running
from sounds import by_av, encoded, wav
from test_serve_realtime import client_of

from speech_reallm import Recognizer, Transcript
from speech_reallm.formats import to_srt, to_text, to_vtt
from speech_reallm.serve.spool import Spool


def recording(seconds: float = 6, rate: int = 16000, kind: str = "FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speech(seconds, rate=rate), rate, format=kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def flac() -> bytes:
    return recording()


@pytest.fixture(scope="module")
def transcript(recognizer: Recognizer, flac: bytes, tmp_path_factory: pytest.TempPathFactory) -> Transcript:
    path = tmp_path_factory.mktemp("uploads") / "talk.flac"
    path.write_bytes(flac)
    return recognizer.transcribe(path)


def test_formats(server: Running, flac: bytes, transcript: Transcript) -> None:
    create = client_of(server).audio.transcriptions.create
    options = {"model": "whisper-1", "file": ("talk.flac", flac)}
    assert create(**options).text == transcript.text != ""
    for name, function in (("text", to_text), ("srt", to_srt), ("vtt", to_vtt)):
        assert create(**options, response_format=name) == function(transcript)
    verbose = create(**options, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (verbose.text, verbose.duration) == (transcript.text, pytest.approx(6))
    assert [w.word for w in verbose.words] == [w.word for w in transcript.words]
    assert [w.start for w in verbose.words] == pytest.approx([w.start for w in transcript.words], abs=1e-3)
    assert [s.text for s in verbose.segments] == [s.text for s in transcript.segments]
    assert create(**options, response_format="verbose_json").words is None


def test_text_as_it_is_recognised(server: Running, flac: bytes, transcript: Transcript) -> None:
    stream = client_of(server).audio.transcriptions.create(
        model="any", file=("talk.flac", flac), stream=True, language="en"
    )
    *deltas, done = list(stream)
    assert {d.type for d in deltas} == {"transcript.text.delta"} and done.type == "transcript.text.done"
    assert "".join(d.delta for d in deltas) == done.text == transcript.text


@pytest.mark.parametrize(
    ("fields", "file", "complaint"),
    [
        ({}, b"", "empty"),
        ({}, b"no audio at all", "neither audio"),
        ({}, b"RIFF\xff\xff\xff\xffWAVEfmt ", "breaks off"),
        ({"response_format": "docx"}, b"", "response_format"),
        ({"language": "de"}, b"", "only en"),
        ({"stream": "maybe"}, b"", "stream"),
        ({"timestamp_granularities[]": "letter"}, b"", "granularities"),
        ({"delay": "-1"}, b"", "delay"),
        ({}, None, "file"),
    ],
)
def test_what_cannot_be_used(server: Running, fields: dict, file: bytes | None, complaint: str) -> None:
    answer = post(server, fields, file)
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]["message"]
    # the server's own folders are nobody's business
    assert "/tmp" not in answer.text and "reallm-" not in answer.text


def post(server: Running, fields: dict[str, Any], file: bytes | None) -> httpx2.Response:
    files = {"file": ("../../x.wav", file)} if file is not None else {"other": ("x", b"")}
    return httpx2.post(f"{server.url}/v1/audio/transcriptions", data=fields, files=files, timeout=PATIENCE)


def test_too_large_too_long_too_many(start: Callable[..., Running], flac: bytes) -> None:
    server = start(upload_bytes=1000, sessions=1, upload_seconds=5.0)
    assert post(server, {}, bytes(2_000_000)).status_code == 413

    def endless():
        # no length is given beforehand
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(100_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    url = f"{server.url}/v1/audio/transcriptions"
    assert httpx2.post(url, content=endless(), headers=headers, timeout=PATIENCE).status_code == 413
    answer = post(server, {}, flac)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    with server.socket() as client:
        client.receive()
        with pytest.raises(openai.InternalServerError) as refused:
            client_of(server).audio.transcriptions.create(model="any", file=("talk.flac", flac))
        assert refused.value.status_code == 503 and refused.value.code == "busy"


def test_a_place_is_taken_before_the_file_arrives(start: Callable[..., Running]) -> None:
    server = start(sessions=1, send_seconds=0.5)
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as raw:
        raw.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        )
        # the rest never comes: it is told so, and then another may have the place
        assert raw.recv(1000).startswith(b"HTTP/1.1 408")
    assert server.service.batcher.sessions == 0
    with server.socket() as client:
        assert client.receive()["type"] == "ready"


def test_key_and_origin(start: Callable[..., Running], flac: bytes) -> None:
    server = start(keys=("secret",))
    with pytest.raises(openai.AuthenticationError):
        client_of(server, "wrong").audio.transcriptions.create(model="any", file=("talk.flac", flac))
    assert client_of(server, "secret").models.list().data[0].id == "fake"
    client = client_of(server, "secret").with_options(default_headers={"Origin": "https://bad.example"})
    with pytest.raises(openai.PermissionDeniedError):
        client.audio.transcriptions.create(model="any", file=("talk.flac", flac))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=400), boundary=st.text('abB-="; ', max_size=12).map(str.strip), head=st.booleans()
)
@example(body=b"--b\r\n\r\nx", boundary="b", head=False)
@example(
    body=b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n\r\n--b--', boundary="b", head=False
)
def test_any_bytes_get_an_answer(server: Running, body: bytes, boundary: str, head: bool) -> None:
    if head:
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + body
        boundary = "b"
        body += b"\r\n--b--\r\n"
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer = httpx2.post(
        f"{server.url}/v1/audio/transcriptions", content=body, headers=headers, timeout=PATIENCE
    )
    assert 400 <= answer.status_code < 500 and json.loads(answer.text)["error"]["message"]
    assert server.service.batcher.sessions == 0


def test_what_the_command_line_reads(server: Running, recognizer: Recognizer, tmp_path: Path) -> None:
    """By content, whatever the name: containers of PyAV, joined and unfinished files."""
    pytest.importorskip("av")
    sound = speech(3, rate=48000)
    files = {
        "memo.m4a": by_av([sound], "mp4", "aac"),
        "browser.webm": by_av([sound], "webm", "libopus", options={"live": "1"}),
        "joined.mp3": encoded(speech(2), "mp3") + encoded(speech(2, 1), "mp3"),
        "crashed.wav": wav(speech(3), 0, riff=0),
        "none": encoded(speech(3), "AIFF", "PCM_16"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        expected = recognizer.transcribe(tmp_path / name)
        answer = post(server, {"response_format": "verbose_json"}, data)
        assert answer.status_code == 200, answer.text
        assert answer.json()["text"] == expected.text != ""
        assert answer.json()["duration"] == pytest.approx(expected.duration, abs=1e-3)
        assert "warnings" not in answer.json()


def test_what_is_missing_is_told(server: Running) -> None:
    whole = wav(speech(3))
    for kind in ("json", "verbose_json"):
        answer = post(server, {"response_format": kind}, whole[: len(whole) // 2])
        (warning,) = answer.json()["warnings"]
        assert answer.status_code == 200 and "cut short after 1.5 s of 3.0 s" in warning
        assert warning.startswith("the recording is")


def test_the_limit_in_the_answer_is_the_one_that_was_set(start: Callable[..., Running]) -> None:
    server = start(upload_bytes=1 << 20)
    for size in (1_500_000, 3_500_000):
        answer = post(server, {}, bytes(size))
        assert answer.status_code == 413 and "1 MB" in answer.json()["error"]["message"]


def test_without_a_disk(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits in memory is answered; for the rest the server takes the blame, in JSON."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", refuse)
    large = wav(np.tile(speech(3), 15))
    assert len(large) > 1 << 20
    assert post(server, {}, large).status_code == 200
    monkeypatch.setattr(
        "speech_reallm.serve.spool.Spool.__init__.__defaults__", (1 << 10, 1 << 12), raising=False
    )
    monkeypatch.setattr(Spool.__init__, "__defaults__", (1 << 10, 1 << 12))
    answer = post(server, {}, large)
    assert answer.status_code == 507
    assert answer.json()["error"]["type"] == "server_error"
    assert "cannot store" in answer.json()["error"]["message"]


def test_a_spool_is_a_file() -> None:
    for memory in (10, 1000):
        spool = Spool(memory=memory)
        for _ in range(20):
            spool.write(b"0123456789")
        assert spool.tell() == 200 and spool.seek(-5, 2) == 195
        assert spool.read() == b"56789" and spool.seek(0) == 0 and spool.read(12) == b"012345678901"
        spool.close()
        assert spool.closed


def test_hot_words_of_an_upload(server: Running, recognizer: Recognizer, flac: bytes, tmp_path: Path) -> None:
    path = tmp_path / "talk.flac"
    path.write_bytes(flac)
    expected = recognizer.transcribe(path, hotwords=["the weather", "sea"], hotwords_strength=10).text
    for fields in ({"prompt": "the weather, sea."}, {"hotwords": "the weather,sea", "prompt": "shells"}):
        answer = post(server, {**fields, "hotwords_strength": "10"}, flac)
        assert answer.json()["text"] == expected
    assert post(server, {"hotwords_strength": "11"}, flac).status_code == 400
    # a prompt is never too long
    assert post(server, {"prompt": ", ".join(f"name{i}" for i in range(5000))}, flac).status_code == 200
