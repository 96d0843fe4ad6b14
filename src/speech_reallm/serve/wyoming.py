"""The Wyoming protocol of Home Assistant: events of a JSON line, with data and audio behind it, over TCP.

A connection asks what there is (`describe`), and has one utterance after the other recognised: `transcribe`,
`audio-start`, `audio-chunk`, ..., `audio-stop`. Text is sent while it is spoken (`transcript-start`,
`transcript-chunk`, `transcript-stop`), and once more as a whole (`transcript`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from typing import Any

import numpy as np

from ..audio import MAX_RATE, MIN_RATE, SAMPLE_RATE, to_channels
from ..channels import Mixer
from ..errors import UserError
from ..events import Final, Partial
from ..extras import install_command
from ..hotwords import within_bounds
from .batcher import Options, Session
from .service import Service
from .settings import Refused
from .sockets import Gone
from .values import check_language, read_terms, whole_number

try:
    from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
    from wyoming.error import Error
    from wyoming.event import Event, async_write_event
    from wyoming.info import AsrModel, AsrProgram, Attribution, Info
    from wyoming.ping import Pong
except ImportError:
    raise UserError(
        f"--wyoming needs the package wyoming; install it: {install_command('wyoming')}"
    ) from None

log = logging.getLogger("speech_reallm.serve")
# bytes of the JSON line, and of the data behind it
MAX_LINE, MAX_DATA = 1 << 16, 1 << 18
MAX_CHANNELS = 32
HOME = "https://github.com/rhasspy/wyoming"


class Wyoming:
    """The listening socket and its connections, in the server's event loop."""

    def __init__(self, service: Service, sock: socket.socket) -> None:
        self._service, self._socket = service, sock
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._socket, limit=MAX_LINE)
        log.info("listening for Wyoming", extra={"wyoming_port": self.port})
        if self._service.settings.keys:
            log.warning("Wyoming has no API keys: whoever can reach its port may use it")

    async def stop(self) -> None:
        """Close what is left; the sessions have been drained before."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # a connection costs next to nothing until audio comes, but there are not any number of them
            if len(self._connections) <= self._service.settings.sessions * 4:
                await Connection(self._service, reader, writer).run()
        except asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(task)
            writer.close()


class Connection:
    """One client; one utterance at a time."""

    def __init__(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._service, self._reader, self._writer = service, reader, writer
        peer = writer.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else None

    async def run(self) -> None:
        """From the first event to the end. Never raises, but for cancellation."""
        terms: tuple[str, ...] = ()
        try:
            while (event := await self._read()) is not None:
                if event.type == "describe":
                    await self._send(self._info().event())
                elif event.type == "ping":
                    await self._send(Pong(text=event.data.get("text")).event())
                elif event.type == "transcribe":
                    check_language(event.data.get("language"), self._service.recognizer.model.language)
                    terms = hotwords_of(event.data)
                elif event.type in ("audio-start", "audio-chunk"):
                    await self._utterance(event, terms)
                # what is not known is not answered, as this protocol has it
        except Gone:
            pass
        except Refused as refused:
            with contextlib.suppress(Gone, Refused):
                await self._send(Error(text=refused.message, code=refused.code).event())
        except Exception:
            log.exception("a Wyoming connection failed")

    async def _utterance(self, first: Event, terms: tuple[str, ...]) -> None:
        """From its start to its transcript. first: the start of the audio, or audio without one. terms: hot words."""
        service = self._service
        service.guard.count_address(self._client or "")
        rate = whole_number(first.data.get("rate", SAMPLE_RATE), "rate", MIN_RATE, MAX_RATE)
        try:
            options = Options(rate=rate, endpoint_silence=None, hotwords=terms)
            session = service.batcher.open(options, "wyoming")
        except Refused as refused:
            service.note_refusal(refused)
            raise
        with service.session(session, self._client):
            answer = asyncio.ensure_future(self._answer(session))
            try:
                await self._feed(session, first)
                await answer
            finally:
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)
            if session.stopped:
                raise session.stopped

    async def _feed(self, session: Session, first: Event) -> None:
        event: Event | None = first
        rest = b""
        mixer: Mixer | None = None
        while event is None or event.type != "audio-stop":
            if event is not None and event.type == "audio-chunk" and event.payload:
                if (
                    whole_number(event.data.get("rate", session.options.rate), "rate", 1, MAX_RATE)
                    != session.options.rate
                ):
                    raise Refused("bad_message", "the rate of the audio changed")
                samples, rest = read_samples(rest + event.payload, event.data)
                if mixer is None or mixer.channels != samples.shape[1]:
                    mixer = Mixer(session.options.rate, samples.shape[1])
                await session.send(mixer.push(samples))
            if session.ended:
                # the server is going down: what has come is answered
                return
            try:
                event = await self._read(session)
            except Refused as refused:
                session.finish(refused)
                return
            if event is None and not session.ended:
                raise Gone
        session.finish()

    async def _answer(self, session: Session) -> None:
        text, new_segment = "", False
        language = self._service.recognizer.model.language
        async for events in session.events():
            for event in events:
                if isinstance(event, Partial):
                    added = f" {event.text}" if text and new_segment else event.text
                    if not text:
                        await self._send(TranscriptStart(language=language).event())
                    text, new_segment = text + added, False
                    await self._send(TranscriptChunk(text=added).event())
                elif isinstance(event, Final):
                    new_segment = True
                self._service.note_sent(session, event)
        streamed = bool(text)
        await self._send(Transcript(text=text, language=language).event())
        if streamed:
            await self._send(TranscriptStop().event())

    async def _read(self, session: Session | None = None) -> Event | None:
        """The next event, None at the end of the connection or of the session. Raises Refused for what is none."""
        reading = asyncio.ensure_future(read_event(self._reader, self._service.settings.message_bytes))
        ended = asyncio.ensure_future(session.wait_ended()) if session else None
        waiting = {reading, ended} if ended else {reading}
        try:
            done, _ = await asyncio.wait(
                waiting, timeout=self._service.settings.idle_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if reading in done:
                return reading.result()
            if not done:
                seconds = self._service.settings.idle_seconds
                raise Refused("idle", f"nothing has come for {seconds:g} s")
            return None
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _send(self, event: Event) -> None:
        try:
            await asyncio.wait_for(
                async_write_event(event, self._writer), self._service.settings.send_seconds
            )
        except asyncio.TimeoutError:
            raise Refused("too_slow", "the client does not read what it is sent") from None
        except (OSError, RuntimeError):
            raise Gone from None

    def _info(self) -> Info:
        model = self._service.recognizer.model
        by = Attribution(name="speech-reallm", url=HOME)
        version = str(self._service.info()["version"])
        described = AsrModel(
            name=model.name,
            attribution=by,
            installed=True,
            description=f"{model.name}, streaming",
            version=version,
            languages=[model.language],
        )
        program = AsrProgram(
            name="speech-reallm",
            attribution=by,
            installed=True,
            description="Streaming speech recognition; text is never taken back",
            version=version,
            models=[described],
            supports_transcript_streaming=True,
        )
        return Info(asr=[program])


async def read_event(reader: asyncio.StreamReader, max_payload: int) -> Event | None:
    """The next event; None at the end. Raises Refused for what is no event, or too large.

    The package's own reader takes payloads of any length into memory.
    """
    try:
        line = await reader.readline()
        if not line:
            return None
        fields = json.loads(line)
        kind, data = fields["type"], fields.get("data")
        data = {} if data is None else data
        lengths = [fields.get(name) or 0 for name in ("data_length", "payload_length")]
        for length, limit in zip(lengths, (MAX_DATA, max_payload), strict=True):
            if isinstance(length, bool) or not isinstance(length, int) or length < 0:
                raise ValueError
            if length > limit:
                raise Refused(
                    "too_large", f"an event may hold {limit} bytes; cut the audio into shorter ones"
                )
        if lengths[0]:
            data = data | json.loads(await reader.readexactly(lengths[0]))
        payload = await reader.readexactly(lengths[1]) if lengths[1] else None
        if not isinstance(kind, str) or not isinstance(data, dict):
            raise ValueError
    except (asyncio.IncompleteReadError, OSError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused("bad_message", "this is no event of the Wyoming protocol") from None
    return Event(type=kind, data=data, payload=payload)


def hotwords_of(data: dict[str, Any]) -> tuple[str, ...]:
    """The names and terms of a `transcribe`, names first, as many as there may be beside the server's own.

    Raises Refused for what is no list of text.
    """
    terms: list[str] = []
    for field in ("transcript_names", "transcript_terms"):
        given = data.get(field)
        terms += read_terms(given) if given is not None else ()
    return within_bounds(terms)


def read_samples(audio: bytes, data: dict[str, Any]) -> tuple[np.ndarray, bytes]:
    """Samples, float32 [n, channels], and the bytes of a sample that was cut. Raises Refused."""
    width = whole_number(data.get("width", 2), "width", 1, 4)
    channels = whole_number(data.get("channels", 1), "channels", 1, MAX_CHANNELS)
    types = {1: "u1", 2: "<i2", 4: "<i4"}
    if width not in types:
        raise Refused("bad_request", "width: 1, 2 or 4 bytes a sample")
    frame = width * channels
    whole = len(audio) // frame * frame
    samples: np.ndarray = np.frombuffer(audio[:whole], types[width]).reshape(-1, channels)
    if width == 1:
        samples = (samples.astype(np.float32) - 128) / 128
    elif width == 4:
        samples = samples.astype(np.float32) / 2**31
    return to_channels(samples), audio[whole:]
