"""The official client of OpenAI's Realtime API, unmodified, against /v1/realtime; and vLLM's dialect."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from fake_model import speech
from serving import Client, Running, pcm, text_of
from test_serve_plain import events_of
from websockets.exceptions import InvalidStatus

from speech_reallm import Final, Recognizer, g711
from speech_reallm.serve.realtime_config import Config
from speech_reallm.serve.realtime_config import update as update_config
from speech_reallm.serve.settings import Refused
from speech_reallm.serve.values import base64_bytes, check_language

AUDIO = pcm(speech(6, rate=24000))
COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"


def client_of(server: Running, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def append(connection: Any, audio: bytes, portion: int = 9600) -> None:
    for start in range(0, len(audio), portion):
        part = base64.b64encode(audio[start : start + portion]).decode()
        connection.input_audio_buffer.append(audio=part)


def until(connection: Any, kind: str) -> list[Any]:
    """Events up to the first of a kind."""
    events = [connection.recv()]
    while events[-1].type != kind:
        assert events[-1].type != "error", events[-1]
        events.append(connection.recv())
    return events


def configure(connection: Any, turn_detection: dict | None, **audio: Any) -> Any:
    """The session as the server then describes it."""
    settings = {"turn_detection": turn_detection, **audio}
    connection.session.update(session={"type": "transcription", "audio": {"input": settings}})
    return until(connection, "session.updated")[-1].session


def test_turns_that_the_client_commits(server: Running, recognizer: Recognizer) -> None:
    with client_of(server).realtime.connect(extra_query={"intent": "transcription"}) as connection:
        created = connection.recv()
        assert created.type == "session.created" and created.session.type == "transcription"
        session = configure(
            connection, None, transcription={"model": "gpt-live-transcribe", "language": "en"}
        )
        assert session.audio.input.turn_detection is None and session.audio.input.format.rate == 24000
        previous = None
        # the second turn knows nothing of the first
        for _ in range(2):
            append(connection, AUDIO)
            connection.input_audio_buffer.commit()
            events = until(connection, COMPLETED)
            expected = events_of(recognizer, AUDIO, 24000, endpoint_silence=None)
            assert events[-1].transcript == text_of(expected) != ""
            assert "".join(e.delta for e in events if e.type == DELTA) == events[-1].transcript
            committed = next(e for e in events if e.type == "input_audio_buffer.committed")
            assert {e.item_id for e in events if hasattr(e, "item_id")} == {committed.item_id}
            assert committed.previous_item_id == previous
            assert events[-1].usage.seconds == pytest.approx(6)
            previous = committed.item_id


def test_turns_that_the_server_detects(server: Running, recognizer: Recognizer) -> None:
    silence = bytes(2 * 24000)
    audio = AUDIO + silence + AUDIO + silence
    with client_of(server).realtime.connect(model="any") as connection:
        configure(connection, {"type": "server_vad", "silence_duration_ms": 240})
        append(connection, audio)
        expected = [
            e for e in events_of(recognizer, audio, 24000, endpoint_silence=0.24) if e["type"] == "final"
        ]
        before = 0
        for final in expected[:3]:
            events = until(connection, COMPLETED)
            kinds = [e.type for e in events if e.type != DELTA]
            assert kinds == [
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
                COMPLETED,
            ]
            assert events[-1].transcript == final["text"]
            started, stopped = (next(e for e in events if e.type == k) for k in kinds[:2])
            assert before <= started.audio_start_ms <= stopped.audio_end_ms == round(1000 * final["end"])
            before = stopped.audio_end_ms
        # an extension: when the words were said
        assert [w["word"] for w in events[-1].words] == final["text"].split()


def test_the_clock_ends_a_turn(start: Callable[..., Running], recognizer: Recognizer) -> None:
    """A client whose own voice gate sends no silence."""
    with client_of(start()).realtime.connect(model="any") as connection:
        configure(connection, {"type": "server_vad", "silence_duration_ms": 350})
        ends = []
        for part in (AUDIO[:60000], AUDIO[60000:130000]):
            append(connection, part, len(part))
            stream = recognizer.stream(24000, endpoint_silence=0.35)
            turns = [e.text for e in [*stream.accept(part), *stream.pause()] if isinstance(e, Final)]
            assert turns
            for text in turns:
                events = until(connection, COMPLETED)
                assert events[-1].transcript == text
            ends.append(next(e for e in events if e.type == "input_audio_buffer.speech_stopped").audio_end_ms)
        assert ends[0] <= 1250 < ends[1] <= 2709


def test_clear_forgets(server: Running, recognizer: Recognizer) -> None:
    with client_of(server).realtime.connect(model="any") as connection:
        configure(connection, None)
        append(connection, AUDIO)
        connection.input_audio_buffer.clear()
        until(connection, "input_audio_buffer.cleared")
        append(connection, AUDIO[:48000])
        connection.input_audio_buffer.commit()
        expected = text_of(events_of(recognizer, AUDIO[:48000], 24000, endpoint_silence=None))
        assert until(connection, COMPLETED)[-1].transcript == expected


def test_errors_are_answered_and_the_connection_goes_on(start: Callable[..., Running]) -> None:
    server = start(message_bytes=4096, per_minute=0)
    with server.socket("/v1/realtime") as client:
        assert client.receive()["type"] == "session.created"
        for message, complaint in (
            ("{", "JSON"),
            (b"\0\0", "JSON"),
            ({"type": ["x"]}, "JSON"),
            ({"type": "response.create"}, "only transcribes"),
            ('{"type": "\\ud800", "event_id": "\\udfff"}', "only transcribes"),
            ({"type": "input_audio_buffer.append", "audio": "*"}, "base64"),
            ({"type": "input_audio_buffer.append", "audio": "AAAAA"}, "base64"),
            ({"type": "input_audio_buffer.append", "audio": "A" * 5000}, "cut the audio"),
            ({"type": "input_audio_buffer.append", "audio": 1}, "base64"),
            ({"type": "input_audio_buffer.append", "audio": "AAA="}, None),
            ({"type": "input_audio_buffer.append", "audio": "AA"}, None),
            ({"type": "session.update", "session": []}, "object"),
            (update(turn_detection={"type": "server_vad", "silence_duration_ms": -1}), "silence"),
            (update(turn_detection={"type": "loud"}), "server_vad"),
            (update(format={"type": "audio/pcm", "rate": True}), "rate"),
            (update(format={"type": {}}), "audio/pcmu"),
            (update(transcription={"language": "de"}), "only en"),
            (update(transcription={"delay": "none"}), "minimal"),
        ):
            client.send(message)
            if complaint:
                error = client.receive()
                assert error["type"] == "error" and complaint in error["error"]["message"]
        client.send({"type": "input_audio_buffer.clear", "event_id": "mine"})
        assert client.receive()["type"] == "input_audio_buffer.cleared"
        client.send({"type": "input_audio_buffer.commit", "event_id": "mine"})
        assert client.receive()["error"]["event_id"] == "mine"


@pytest.mark.parametrize(
    "encode",
    [
        lambda data: base64.b64encode(data).decode().rstrip("="),
        lambda data: base64.encodebytes(data).decode(),
        lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
        lambda data: base64.urlsafe_b64encode(data).decode(),
        lambda data: "data:audio/pcm;base64," + base64.b64encode(data).decode(),
    ],
    ids=["unpadded", "lines", "crlf", "urlsafe", "data-url"],
)
def test_base64_as_libraries_write_it(encode: Callable[[bytes], str]) -> None:
    for size in range(200):
        data = bytes(range(56, 56 + size))
        assert base64_bytes(encode(data)) == data


def test_samples_cut_in_two(server: Running, recognizer: Recognizer) -> None:
    with client_of(server).realtime.connect(model="any") as connection:
        configure(connection, None)
        append(connection, AUDIO, 4801)
        connection.input_audio_buffer.commit()
        expected = text_of(events_of(recognizer, AUDIO, 24000, endpoint_silence=None))
        assert until(connection, COMPLETED)[-1].transcript == expected


def test_settings_as_clients_write_them(server: Running) -> None:
    for given, described in (
        ({"turn_detection": {"type": "server_vad", "silence_duration_ms": 500.0}}, 500),
        ({"turn_detection": {"type": "server_vad", "silence_duration_ms": "700"}}, 700),
        ({"turn_detection": {"type": "semantic_vad", "silence_duration_ms": None}}, 500),
        ({"format": {"type": "audio/pcm", "rate": 16000.0}}, 500),
        ({"format": {"type": "audio/pcm", "rate": None}}, 500),
    ):
        with server.socket("/v1/realtime?language=en_US") as client:
            client.receive()
            client.send(update(**given))
            updated = client.receive()
            assert updated["type"] == "session.updated", updated
            assert updated["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"] == described


@pytest.mark.parametrize(
    "text",
    ["en", "EN", "en-GB", "en_US", "en_US.UTF-8", "english", "English", "eng", "auto", "", " en ", None],
)
def test_languages_that_are_the_models(text: str | None) -> None:
    check_language(text, "en")
    check_language(text, "en-US")


@pytest.mark.parametrize("text", ["de", "german", "deu", "e", "engl", 5, True, ["en"]])
def test_languages_that_are_not(text: Any) -> None:
    with pytest.raises(Refused, match="only en"):
        check_language(text, "en")


def test_settings_change_between_turns_and_no_audio_is_lost(server: Running, recognizer: Recognizer) -> None:
    silence = bytes(2 * 24000 * 2)
    first, second = pcm(speech(3, rate=24000)), pcm(speech(3, 1, rate=24000))
    with client_of(server).realtime.connect(model="any") as connection:
        append(connection, first + silence)
        turns = [
            e.text
            for e in recognizer.stream(24000, endpoint_silence=0.5).accept(first + silence)
            if isinstance(e, Final)
        ]
        heard = [until(connection, COMPLETED)[-1].transcript for _ in turns]
        assert heard == turns
        # the silence alone, and how audio is taken
        assert configure(connection, {"type": "server_vad", "silence_duration_ms": 900}).id
        connection.session.update(
            session={
                "type": "transcription",
                "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}},
            }
        )
        until(connection, "session.updated")
        second = pcm(speech(3, 1))
        append(connection, second + bytes(2 * 16000 * 2))
        expected = [
            e.text
            for e in recognizer.stream(endpoint_silence=0.9).accept(second + bytes(64000))
            if isinstance(e, Final)
        ]
        events = until(connection, COMPLETED)
        assert events[-1].transcript == expected[0]
        # times go on from the connection's first sample
        assert events[-1].words[0]["start"] >= 5


def test_how_audio_is_taken_does_not_change_within_a_turn(server: Running) -> None:
    with server.socket("/v1/realtime") as client:
        client.receive()
        client.send({"type": "input_audio_buffer.append", "audio": base64.b64encode(AUDIO).decode()})
        while client.receive()["type"] != DELTA:
            pass
        client.send(update(format={"type": "audio/pcmu"}))
        message = client.receive()
        while message["type"] not in ("error", "session.updated"):
            message = client.receive()
        assert message["type"] == "error" and "before changing" in message["error"]["message"]


def test_ends_are_proposed_where_a_client_asks(server: Running) -> None:
    silence = bytes(2 * 24000)
    with server.socket("/v1/realtime") as client:
        client.receive()
        client.send(
            update(turn_detection={"type": "server_vad", "silence_duration_ms": 400, "proposed_ends": True})
        )
        assert client.receive()["session"]["audio"]["input"]["turn_detection"]["proposed_ends"] is True
        audio = base64.b64encode(pcm(speech(2, rate=24000)) + silence).decode()
        client.send({"type": "input_audio_buffer.append", "audio": audio})
        kinds = [client.receive()["type"]]
        while kinds[-1] != COMPLETED:
            kinds.append(client.receive()["type"])
    proposed = kinds.index("input_audio_buffer.speech_stop_proposed")
    assert (
        kinds.index("input_audio_buffer.speech_started")
        < proposed
        < kinds.index("input_audio_buffer.speech_stopped")
    )


def update(**audio: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "transcription", "audio": {"input": audio}}}


def test_the_earlier_form_and_telephony(server: Running, recognizer: Recognizer) -> None:
    samples = speech(4, rate=8000)
    for name, law, subtype in (("g711_ulaw", "pcmu", "ULAW"), ("g711_alaw", "pcma", "ALAW")):
        coded = encode(samples, subtype)
        with server.socket("/v1/realtime?intent=transcription") as client:
            settings = {"input_audio_format": name, "turn_detection": None}
            client.send({"type": "transcription_session.update", "session": settings})
            updated = [client.receive(), client.receive()][1]
            assert updated["type"] == "transcription_session.updated"
            assert updated["session"]["input_audio_format"] == name
            client.send({"type": "input_audio_buffer.append", "audio": base64.b64encode(coded).decode()})
            client.send({"type": "input_audio_buffer.commit"})
            message = client.receive()
            while message["type"] != COMPLETED:
                message = client.receive()
        plain = g711.decode(coded, law).tobytes()
        assert message["transcript"] == text_of(events_of(recognizer, plain, 8000, endpoint_silence=None))


def encode(samples: np.ndarray, subtype: str) -> bytes:
    raw = io.BytesIO()
    soundfile.write(raw, samples, 8000, format="RAW", subtype=subtype)
    return raw.getvalue()


@pytest.mark.parametrize(("law", "subtype"), [("pcmu", "ULAW"), ("pcma", "ALAW")])
def test_g711_is_as_libsndfile_has_it(law: str, subtype: str) -> None:
    codes = bytes(range(256))
    file = io.BytesIO(codes)
    expected, _ = soundfile.read(
        file, dtype="int16", format="RAW", subtype=subtype, samplerate=8000, channels=1
    )
    assert g711.decode(codes, law).tolist() == expected.tolist()


def test_delay_by_name(server: Running, recognizer: Recognizer) -> None:
    with server.socket("/v1/realtime") as client:
        client.receive()
        for name in ("minimal", "medium", "xhigh"):
            client.send(update(transcription={"delay": name}, turn_detection=None))
            assert client.receive()["type"] == "session.updated"
        client.send({"type": "input_audio_buffer.append", "audio": base64.b64encode(AUDIO).decode()})
        client.send({"type": "input_audio_buffer.commit"})
        message = client.receive()
        while message["type"] != COMPLETED:
            message = client.receive()
    expected = events_of(recognizer, AUDIO, 24000, delay=2, endpoint_silence=None)
    assert message["transcript"] == text_of(expected)


def vllm(client: Client, audio: bytes) -> list[dict[str, Any]]:
    """As its clients do: say which model, commit, append, and commit as final."""
    assert client.receive()["type"] == "session.created"
    client.send({"type": "session.update", "model": "any"})
    client.send({"type": "input_audio_buffer.commit"})
    for start in range(0, len(audio), 3200):
        part = base64.b64encode(audio[start : start + 3200]).decode()
        client.send({"type": "input_audio_buffer.append", "audio": part})
    client.send({"type": "input_audio_buffer.commit", "final": True})
    messages = [client.receive()]
    while messages[-1]["type"] != "transcription.done":
        messages.append(client.receive())
    return messages


def test_the_dialect_of_vllm(server: Running, recognizer: Recognizer) -> None:
    audio = pcm(speech(5))
    with server.socket("/v1/realtime") as client:
        messages = vllm(client, audio)
    text = messages[-1]["text"]
    assert text == text_of(events_of(recognizer, audio, endpoint_silence=None)) != ""
    assert "".join(m["delta"] for m in messages if m["type"] == "transcription.delta") == text
    usage = messages[-1]["usage"]
    assert usage["prompt_tokens"] == math.ceil(5 / recognizer.model.chunk_seconds)
    assert usage["completion_tokens"] == recognizer.count_pieces(text) > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_who_has_no_key_gets_no_connection(start: Callable[..., Running]) -> None:
    server = start(keys=("secret",))
    with client_of(server, "secret").realtime.connect(model="any") as connection:
        assert connection.recv().type == "session.created"
    with server.socket("/v1/realtime", subprotocols=["realtime", "openai-insecure-api-key.secret"]) as client:
        assert client.receive()["type"] == "session.created"
        assert client.connection.subprotocol == "realtime"
    with pytest.raises(InvalidStatus) as refused, server.socket("/v1/realtime"):
        pass
    assert refused.value.response.status_code == 401


def test_full_and_idle(start: Callable[..., Running]) -> None:
    server = start(sessions=1, idle_seconds=0.5)
    with server.socket("/v1/realtime") as first:
        assert first.receive()["type"] == "session.created"
        with server.socket("/v1/realtime") as second:
            (error,), code = second.rest()
        assert (error["error"]["code"], code) == ("busy", 1013)
        messages, code = first.rest()
    assert (messages[-1]["error"]["code"], code) == ("idle", 1008)


def test_a_prompt_is_a_list_of_hot_words(server: Running, recognizer: Recognizer) -> None:
    """Given before or while somebody speaks, in both forms of the protocol."""
    audio = pcm(speech(6, rate=24000))
    strong = {"prompt": "the weather, sea", "hotwords_strength": 10}
    expected = recognizer.transcribe(
        np.frombuffer(audio, np.int16),
        sample_rate=24000,
        delay=recognizer.delay,
        endpoint_silence=None,
        hotwords=["the weather", "sea"],
        hotwords_strength=10,
    ).text
    for event in (
        {"type": "session.update", "session": {"audio": {"input": {"transcription": strong}}}},
        {"type": "transcription_session.update", "session": {"input_audio_transcription": strong}},
    ):
        event["session"] |= {"turn_detection": None}
        with client_of(server).realtime.connect(model="any") as connection:
            connection.recv()
            connection.send(event)
            connection.recv()
            append(connection, audio)
            connection.input_audio_buffer.commit()
            assert until(connection, COMPLETED)[-1].transcript == expected != ""


def test_numbers_and_hot_words_of_a_realtime_session() -> None:
    def changed(**transcription: Any) -> Config:
        return update_config(Config(), {"audio": {"input": {"transcription": transcription}}}, "en", (0, 1))

    config = changed(numbers="Digits", prompt="Siobhan, Kubernetes")
    assert config.options().numbers == "digits"
    assert config.options().hotwords == ("Siobhan", "Kubernetes")
    assert not config.takes_audio_as(Config())
    shown = config.describe("fake")["transcription"]
    assert (shown["numbers"], shown["prompt"]) == ("digits", "Siobhan, Kubernetes")
    assert changed(numbers=None).numbers is None
    for wrong in ({"numbers": "roman"}, {"prompt": ["a"]}, {"hotwords_strength": -1}):
        with pytest.raises(Refused):
            changed(**wrong)
