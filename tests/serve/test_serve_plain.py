"""The plain WebSocket keeps the promises of docs/websocket.md."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import numpy as np
import pytest
from fake_model import speech
from serving import Running, pcm, say, text_of
from websockets.exceptions import InvalidStatus

from speech_reallm import Final, Recognizer
from speech_reallm.serve.batcher import CLOCK_MARGIN, LONGEST_RHYTHM, Arrivals, Options
from speech_reallm.serve.plain import to_json

AUDIO = pcm(speech(6))


def events_of(recognizer: Recognizer, audio: bytes, rate: int = 16000, **options) -> list[dict]:
    stream = recognizer.stream(rate, **options)
    return [to_json(e) for e in [*stream.accept(audio), *stream.finish().events]]


def test_what_is_said_is_what_a_stream_says(server: Running, recognizer: Recognizer) -> None:
    with server.socket() as client:
        messages, code = say(client, AUDIO, 1000)
    ready, *rest = messages
    assert code == 1000
    assert (ready["type"], ready["model"], ready["rate"], ready["delay"]) == ("ready", "fake", 16000, 1)
    assert rest == events_of(recognizer, AUDIO)
    finals = [m for m in rest if m["type"] == "final"]
    partials = "".join(m["text"] for m in rest if m["type"] == "partial")
    assert finals and partials == "".join(f["text"] for f in finals)


def test_options(server: Running, recognizer: Recognizer) -> None:
    audio = pcm(speech(4, rate=8000))
    with server.socket("/v1/stream?rate=8000&delay=2&endpoint_ms=0") as client:
        messages, code = say(client, audio, 160)
    assert (code, messages[0]["delay"], messages[0]["rate"]) == (1000, 2, 8000)
    assert text_of(messages) == text_of(events_of(recognizer, audio, 8000, delay=2, endpoint_silence=None))
    assert not any(m["type"] == "endpoint" for m in messages)


def test_words_come_while_the_speaker_speaks(server: Running) -> None:
    with server.socket() as client:
        client.send(AUDIO)
        assert client.receive()["type"] == "ready"
        # no finish has been sent
        assert client.receive()["type"] == "partial"


def test_progress_is_told_where_it_is_asked_for(server: Running) -> None:
    """Also of silence, of which nothing else is told, and no further than what has been sent."""
    with server.socket("/v1/stream?progress_ms=100&endpoint_ms=0") as client:
        client.send(pcm(np.zeros(16000, np.float32)))
        assert client.receive()["type"] == "ready"
        times = [0.0]
        while times[-1] < 0.96:
            message = client.receive()
            assert message["type"] == "progress"
            times.append(message["time"])
        assert times == sorted(times) and times[-1] <= 1


def test_finish_without_audio(server: Running) -> None:
    with server.socket() as client:
        assert [m["type"] for m in say(client, b"")[0]] == ["ready"]


def test_sessions_at_once_do_not_mix(server: Running, recognizer: Recognizer) -> None:
    audios = [pcm(speech(3, seed=n)) for n in range(6)]
    sockets = [server.socket() for _ in audios]
    clients = [s.__enter__() for s in sockets]
    for start in range(0, max(map(len, audios)), 3200):
        for client, audio in zip(clients, audios, strict=True):
            client.send(audio[start : start + 3200])
    for client, audio in zip(clients, audios, strict=True):
        client.send({"type": "finish"})
        messages, code = client.rest()
        assert code == 1000 and messages[1:] == events_of(recognizer, audio)
    for socket in sockets:
        socket.__exit__(None, None, None)


@pytest.mark.parametrize(
    "query",
    [
        "rate=7999",
        "rate=1e4",
        "rate=16_000",
        "rate=-1",
        "delay=3",
        "delay=x",
        "endpoint_ms=60001",
        "progress_ms=99",
        "rate=\u0664",
        "rate=16000.5",
        "language=de",
        "turn_events=maybe",
    ],
)
def test_options_out_of_range(server: Running, query: str) -> None:
    with server.socket(f"/v1/stream?{query}") as client:
        (error,), code = client.rest()
    assert (error["type"], error["code"], code) == ("error", "bad_request", 1008)
    assert query.split("=")[0] in error["message"]


@pytest.mark.parametrize("message", ["{", "[]", '{"type": 1}', "null", "[" * 20000, '"finish"'])
def test_garbage(server: Running, message: bytes | str) -> None:
    with server.socket() as client:
        client.send(message)
        messages, code = client.rest()
    assert (messages[-1]["code"], code) == ("bad_message", 1007)


def test_the_server_is_full(start: Callable[..., Running]) -> None:
    server = start(sessions=1)
    with server.socket() as first:
        assert first.receive()["type"] == "ready"
        with server.socket() as second:
            (error,), code = second.rest()
        assert (error["code"], code) == ("busy", 1013)
        assert server.metric("reallm_refused_total", reason="busy") == 1
        assert say(first, AUDIO)[1] == 1000
    with server.socket() as third:
        assert third.receive()["type"] == "ready"


def test_key(start: Callable[..., Running]) -> None:
    server = start(keys=("secret", "other"))
    for query, headers, expected in (
        ("?key=other", {}, "ready"),
        ("", {"Authorization": "Bearer secret"}, "ready"),
        ("?key=wrong", {}, "error"),
        ("?key=%C3%A9", {}, "error"),
        ("", {}, "error"),
    ):
        with server.socket(f"/v1/stream{query}", additional_headers=headers) as client:
            message = client.receive()
            assert message["type"] == expected
            if expected == "error":
                assert message["code"] == "unauthorized" and client.rest()[1] == 1008
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/metrics")
    with refused.value as answer:
        assert answer.code == 401
    with urllib.request.urlopen(f"{server.url}/v1/info") as answer:
        assert answer.status == 200
    request = urllib.request.Request(f"{server.url}/metrics", headers={"Authorization": "Bearer secret"})
    with urllib.request.urlopen(request) as answer:
        assert b"reallm_sessions " in answer.read()


def test_origins(start: Callable[..., Running]) -> None:
    server = start(origins=("https://good.example",))
    for origin in ("https://good.example", server.url):
        with server.socket(origin=origin) as client:
            assert client.receive()["type"] == "ready"
    for origin in ("https://bad.example", "null", f"{server.url}1", "http://[::1"):
        with pytest.raises(InvalidStatus) as refused, server.socket(origin=origin):
            pass
        assert refused.value.response.status_code == 403


def test_rate_limit(start: Callable[..., Running]) -> None:
    server = start(per_minute=2)
    codes = []
    for _ in range(3):
        with server.socket() as client:
            codes.append(say(client, b"")[1])
    assert codes == [1000, 1000, 1013]


def test_idle(start: Callable[..., Running], recognizer: Recognizer) -> None:
    server = start(idle_seconds=0.5)
    with server.socket() as client:
        client.send(AUDIO)
        messages, code = client.rest()
    assert (messages[-1]["code"], code) == ("idle", 1008)
    # what had been said is answered first
    assert text_of(messages) == text_of(events_of(recognizer, AUDIO))


def test_words_of_partials_build_the_text(server: Running) -> None:
    with server.socket() as client:
        messages, _ = say(client, pcm(speech(10, seed=3)))
    words: list[str] = []
    for message in messages:
        if message["type"] == "partial":
            if not message["text"].startswith(" ") and words:
                words.pop()
            words += [w["word"] for w in message["words"]]
        elif message["type"] == "final":
            assert words == [w["word"] for w in message["words"]] == message["text"].split()
            words = []
    assert not words


def test_json_has_short_numbers() -> None:
    event = Final("a", (), 1.23456789, 2.0)
    assert to_json(event) == {"type": "final", "text": "a", "words": [], "start": 1.235, "end": 2.0}


def test_the_clock_ends_a_turn_and_the_connection_lives_on(
    start: Callable[..., Running], recognizer: Recognizer
) -> None:
    """A microphone that is muted, or a client that sends no silence."""
    server = start()
    with server.socket("/v1/stream?endpoint_ms=300") as client:
        assert client.receive()["type"] == "ready"
        times = []
        for part in (AUDIO[:40000], AUDIO[40000:90000]):
            client.send(part)
            messages = [client.receive()]
            while messages[-1]["type"] != "endpoint":
                messages.append(client.receive())
            stream = recognizer.stream(endpoint_silence=0.3)
            expected = [to_json(e) for e in [*stream.accept(part), *stream.pause()]]
            assert text_of(messages) == text_of(expected) != ""
            times.append(messages[-1]["time"])
        # times are of the audio, not of the clock
        assert times == pytest.approx([40000 / 32000, 90000 / 32000], abs=1e-3)
        messages, code = say(client, b"")
        assert (messages, code) == ([], 1000)


def test_the_clock_lets_alone_who_wants_no_endpoints(start: Callable[..., Running]) -> None:
    server = start(idle_seconds=1.5)
    with server.socket("/v1/stream?endpoint_ms=0") as client:
        client.send(AUDIO)
        messages, code = client.rest()
    assert not [m for m in messages if m["type"] == "endpoint"]
    assert (messages[-1]["code"], code) == ("idle", 1008)


def test_what_the_clock_waits_for() -> None:
    """The end-point silence, and the rhythm in which the client sends."""
    live = Arrivals()
    for n in range(50):
        live.came(n * 0.1, 0.1)
    assert live.over(0.5) == pytest.approx(4.9 + 0.5 + 0.1 + CLOCK_MARGIN)
    blocks = Arrivals()
    for n in range(5):
        blocks.came(float(n), 1.0)
        assert blocks.over(0.3) > n + 1.3
    # a recording in one piece is not waited for as long as it is
    once = Arrivals()
    once.came(0.0, 60.0)
    assert once.over(0.5) == pytest.approx(0.5 + LONGEST_RHYTHM + CLOCK_MARGIN)
    # a file that is sent faster than it was spoken, packet by packet
    fast = Arrivals()
    for n in range(100):
        fast.came(n * 0.06, 0.4)
    assert fast.over(0.5) < fast.last + 0.5 + 0.1 + CLOCK_MARGIN
    # a network that stalls for a second and then delivers may do so again
    stalling = Arrivals()
    for n in range(20):
        stalling.came(n * 0.1, 0.1)
    for _ in range(10):
        stalling.came(2.9, 0.1)
    for n in range(5):
        stalling.came(3.0 + n * 0.1, 0.1)
    assert stalling.over(0.5) > 3.4 + 0.5 + 0.7


def test_a_sample_may_be_cut_in_two(server: Running, recognizer: Recognizer) -> None:
    with server.socket() as client:
        messages, code = say(client, AUDIO, 3201)
    assert code == 1000 and messages[1:] == events_of(recognizer, AUDIO)
    with server.socket() as client:
        messages, code = say(client, AUDIO[:64001], 777)
    assert code == 1000 and messages[1:] == events_of(recognizer, AUDIO[:64000])


def test_turn_events_of_the_plain_socket(server: Running, recognizer: Recognizer) -> None:
    with server.socket("/v1/stream?turn_events=true&endpoint_ms=400") as client:
        messages, code = say(client, pcm(speech(3)) + bytes(64000) + pcm(speech(2, 1)))
    kinds = [m["type"] for m in messages[1:]]
    assert code == 1000 and kinds[0] == "speech_started" and "endpoint_proposed" in kinds
    stream = recognizer.stream(turn_events=True, endpoint_silence=0.4)
    audio = pcm(speech(3)) + bytes(64000) + pcm(speech(2, 1))
    assert messages[1:] == [to_json(e) for e in [*stream.accept(audio), *stream.finish().events]]


def test_a_client_that_says_it_is_there_is_not_idle(start: Callable[..., Running]) -> None:
    server = start(idle_seconds=2.0)
    with server.socket() as client:
        assert client.receive()["type"] == "ready"
        for _ in range(6):
            time.sleep(0.5)
            client.send({"type": "keepalive"})
        assert say(client, AUDIO)[1] == 1000


@pytest.mark.parametrize(
    "query", ["rate=16000.0&endpoint_ms=800.0", "language=en_US", "language=auto", "turn_events=0"]
)
def test_options_as_people_type_them(server: Running, recognizer: Recognizer, query: str) -> None:
    with server.socket(f"/v1/stream?{query}") as client:
        messages, code = say(client, AUDIO)
    assert code == 1000 and messages[1:] == events_of(recognizer, AUDIO)


STRONG = {"hotwords": ["the weather", "sea"], "hotwords_strength": 10.0}


def test_hot_words_of_a_session(server: Running, recognizer: Recognizer) -> None:
    with server.socket("/v1/stream?hotwords=the%20weather,%20sea&hotwords_strength=10") as client:
        messages, code = say(client, AUDIO)
    assert code == 1000
    assert text_of(messages) == text_of(events_of(recognizer, AUDIO, **STRONG))
    assert text_of(messages).count("weather") > text_of(events_of(recognizer, AUDIO)).count("weather")


def test_hot_words_change_while_the_session_runs(server: Running, recognizer: Recognizer) -> None:
    with server.socket("/v1/stream?hotwords=shells") as client:
        client.send('{"type": "hotwords", "terms": ["the weather", "sea"], "strength": 10}')
        messages, code = say(client, AUDIO)
    assert code == 1000
    assert text_of(messages) == text_of(events_of(recognizer, AUDIO, **STRONG))


def test_hot_words_of_the_server_are_those_of_all(
    start: Callable[..., Running], recognizer: Recognizer
) -> None:
    with start(hotwords=("the weather",)).socket("/v1/stream?hotwords=sea&hotwords_strength=10") as client:
        messages, _ = say(client, AUDIO)
    assert text_of(messages) == text_of(events_of(recognizer, AUDIO, **STRONG))


def test_numbers_of_the_server_where_a_session_names_none(start: Callable[..., Running]) -> None:
    batcher = start(numbers="digits").server.service.batcher
    assert batcher.check(Options()).numbers == "digits"
    assert batcher.check(Options(numbers="words")).numbers == "words"


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "hotwords"}',
        '{"type": "hotwords", "terms": [1]}',
        '{"type": "hotwords", "terms": ["a"], "strength": "very"}',
        json.dumps({"type": "hotwords", "terms": [f"w{i}" for i in range(2000)]}),
    ],
)
def test_hot_words_that_cannot_be_taken(server: Running, message: str) -> None:
    with server.socket() as client:
        client.send(message)
        messages, code = say(client, b"")
    assert (messages[-1]["type"], messages[-1]["code"], code) == ("error", "bad_request", 1008)
