"""All sessions, one loop: every stream that has a chunk ready contributes it to the next batch.

The loop runs in a thread of its own; sessions live in the event loop. What both touch is guarded by one lock,
and a stream is touched only by the thread while its session is `busy`. A session contributes at most one chunk
to a batch and then queues up again, so that nobody who sends fast delays those who speak.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..audio import check_rate
from ..errors import UserError
from ..events import Event, Final
from ..recognizer import Recognizer
from ..stream import Stream
from .metrics import Metrics
from .settings import Refused, Settings

log = logging.getLogger("speech_reallm.serve")
# audio is fed in no smaller portions than these, seconds
LEAST_FEED = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a client chooses. rate: Hz; delay: chunks; endpoint_silence: seconds, None for never."""

    rate: int = 16000
    delay: int | None = None
    endpoint_silence: float | None = 0.8


class Session:
    """One speaker's way through the batcher. Made by `Batcher.open`; its methods belong to the event loop.

    Costs next to nothing until audio comes: the stream, and its state, are made with the first of it.
    """

    def __init__(self, batcher: Batcher, options: Options, kind: str) -> None:
        self.id = f"s-{secrets.token_hex(6)}"
        self.options, self.kind = options, kind
        self.opened = time.monotonic()
        self.samples = 0
        self._recognised_samples = 0
        # why the session ends before its time, if it does
        self.stopped: Refused | None = None
        self._batcher = batcher
        self._stream: Stream | None = None
        self._pending: deque[np.ndarray] = deque()
        self._pending_samples = 0
        self._limit = int(batcher.settings.buffer_seconds * options.rate)
        self._ended = self._closed = self._busy = self._over = False
        self._ready_at = 0.0
        # events made but not yet taken by the client's side
        self._unsent = 0
        self._outbox: deque[Event] = deque()
        self._failure: Refused | None = None
        self._news, self._room = asyncio.Event(), asyncio.Event()

    @property
    def seconds(self) -> float:
        """Audio that has come so far."""
        return self.samples / self.options.rate

    @property
    def recognised_seconds(self) -> float:
        """Audio that the recogniser has received so far, silence included."""
        return self._recognised_samples / self.options.rate

    @property
    def ended(self) -> bool:
        return self._ended or self._closed

    async def send(self, pcm: bytes | np.ndarray) -> None:
        """Take audio: bytes of 16-bit samples, or float32 [n]. Waits while too much of it waits already.

        Raises Refused for bytes that are no whole samples. After the end, audio is ignored.
        """
        if isinstance(pcm, bytes):
            if len(pcm) % 2:
                raise Refused("bad_message", "an odd number of bytes is not 16-bit PCM")
            pcm = np.frombuffer(pcm, dtype="<i2")
        if not len(pcm) or self.ended:
            return
        self.samples += len(pcm)
        self._batcher._push(self, pcm)
        while self._pending_samples > self._limit and not self.ended and not self._over:
            self._room.clear()
            await self._room.wait()

    def finish(self, reason: Refused | None = None) -> None:
        """No more audio comes: what has come is answered, then `events` ends. reason: goes to `stopped`."""
        if not self.ended:
            self.stopped = reason
            self._batcher._end(self)
        self._room.set()

    def close(self) -> None:
        """Drop whatever is left and free the place. May be called again."""
        self._batcher._close(self)
        self._room.set()
        self._news.set()

    async def events(self) -> AsyncIterator[list[Event]]:
        """Events as they come, several at a time, until the session is over. Raises Refused if it fails."""
        while True:
            while not self._outbox and not self._over and not self._closed:
                self._news.clear()
                await self._news.wait()
            if self._outbox and not self._closed:
                events = list(self._outbox)
                self._outbox.clear()
                yield events
                # only now has the client taken them
                self._batcher._taken(self, len(events))
                continue
            if self._failure:
                raise self._failure
            return

    def _deliver(self, events: Sequence[Event], over: bool, failure: Refused | None) -> None:
        self._outbox += events
        self._over = self._over or over
        self._failure = self._failure or failure
        self._news.set()
        self._room.set()

    # what follows runs under the batcher's lock

    def _is_ready(self) -> bool:
        if self._busy or self._closed or self._over or self._unsent > self._batcher.settings.outbox:
            return False
        if self._ended:
            return True
        return self._pending_samples > 0 and self._pending_samples >= self._wanted()

    def _wanted(self) -> int:
        """Samples to be fed next."""
        if self._stream is None:
            chunk = self._batcher.recognizer.model.chunk_seconds
            return int(np.ceil(chunk * self.options.rate))
        return max(self._stream.missing, int(LEAST_FEED * self.options.rate))

    def _take(self) -> tuple[np.ndarray, bool]:
        """At most a chunk of what waits, and whether it is the last."""
        wanted, parts = self._wanted(), []
        while self._pending and wanted:
            part = self._pending.popleft()
            if len(part) > wanted:
                self._pending.appendleft(part[wanted:])
                part = part[:wanted]
            wanted -= len(part)
            self._pending_samples -= len(part)
            parts.append(part)
        audio = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, np.int16)
        return audio, self._ended and not self._pending


class Batcher:
    """Owns the recogniser's loop. `start` and all of its public methods belong to the event loop."""

    def __init__(self, recognizer: Recognizer, settings: Settings, metrics: Metrics) -> None:
        self.recognizer, self.settings, self.metrics = recognizer, settings, metrics
        self.draining = False
        self._sessions: set[Session] = set()
        # sessions whose chunk waits, the longest waiting first; a dict for its order
        self._ready: dict[Session, None] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="recogniser", daemon=True)
        self._emptied = asyncio.Event()
        metrics.watch(lambda: len(self._sessions), lambda: len(self._ready))

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; sessions that are still open get no more events."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._loop is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    @property
    def healthy(self) -> bool:
        return self._thread.is_alive() and not self.draining

    def check(self, options: Options) -> Options:
        """The options with all defaults filled in. Raises Refused for those out of range."""
        try:
            check_rate(options.rate, "rate")
            delay = self.recognizer.delay if options.delay is None else options.delay
            if delay not in self.recognizer.delays:
                known = ", ".join(map(str, self.recognizer.delays))
                raise UserError(f"delay: {delay} is not among this model's: {known}")
        except UserError as err:
            raise Refused("bad_request", str(err)) from None
        return Options(rate=options.rate, delay=delay, endpoint_silence=options.endpoint_silence)

    def admit(self) -> None:
        """Raises Refused where there is no place for another session."""
        if self.draining:
            raise Refused("draining", "the server is going down; connect anew")
        if len(self._sessions) >= self.settings.sessions:
            raise Refused("busy", "the server is full; try again later")
        if self._lag() > self.settings.lag_seconds:
            raise Refused("busy", "the server cannot keep up; try again later")

    def open(self, options: Options, kind: str, instead_of: Session | None = None) -> Session:
        """A new session, if there is a place, or one in the place of another. Raises Refused."""
        options = self.check(options)
        if instead_of is None or instead_of not in self._sessions:
            self.admit()
            self.metrics.opened.labels(kind).inc()
        elif self.draining:
            self.admit()
        else:
            instead_of.close()
        session = Session(self, options, kind)
        self._sessions.add(session)
        self._emptied.clear()
        return session

    async def drain(self, seconds: float) -> bool:
        """Admit nobody, end all sessions so that their finals are sent; are all gone after `seconds`?"""
        self.draining = True
        for session in list(self._sessions):
            # an upload has all of its audio and is only waited for
            if session.kind != "upload":
                session.finish(Refused("draining", "the server is going down; connect anew"))
        until = time.monotonic() + seconds
        while self._sessions and time.monotonic() < until:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), until - time.monotonic())
        return not self._sessions

    def _lag(self) -> float:
        """Seconds for which the longest waiting chunk has waited."""
        with self._wake:
            first = next(iter(self._ready), None)
            return time.monotonic() - first._ready_at if first else 0.0

    def _push(self, session: Session, samples: np.ndarray) -> None:
        with self._wake:
            session._pending.append(samples)
            session._pending_samples += len(samples)
            self._offer(session)

    def _end(self, session: Session) -> None:
        with self._wake:
            session._ended = True
            self._offer(session)

    def _taken(self, session: Session, count: int) -> None:
        with self._wake:
            session._unsent -= count
            self._offer(session)

    def _close(self, session: Session) -> None:
        with self._wake:
            session._closed = True
            self._ready.pop(session, None)
            session._pending.clear()
            session._pending_samples = 0
            if not session._busy:
                session._stream = None
        self._sessions.discard(session)
        if not self._sessions:
            self._emptied.set()

    def _offer(self, session: Session) -> None:
        """Queue a session up if it has a chunk; under the lock."""
        if session not in self._ready and session._is_ready():
            session._ready_at = time.monotonic()
            self._ready[session] = None
            self._wake.notify()

    # the thread

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._ready and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return
                turn = list(itertools.islice(self._ready, self.settings.batch))
                portions = []
                for session in turn:
                    del self._ready[session]
                    session._busy = True
                    portions.append(session._take())
            try:
                results = self._turn(turn, portions)
            except Exception:
                # the loop must go on for all others, whatever it was
                log.exception("a turn failed")
                fault = Refused("internal", "a fault of the server")
                results = [(session, [], True, fault) for session in turn]
            with self._wake:
                for (session, events, over, _), (samples, _) in zip(results, portions, strict=True):
                    session._busy = False
                    session._recognised_samples += len(samples)
                    session._unsent += len(events)
                    if over or session._closed:
                        session._stream = None
                        session._ended = True
                    else:
                        self._offer(session)
            assert self._loop is not None, "start() sets it before this thread runs"
            try:
                self._loop.call_soon_threadsafe(_deliver, results)
            except RuntimeError:
                # the event loop is gone, and with it everyone who would listen
                return

    def _turn(self, turn: list[Session], portions: list[tuple[np.ndarray, bool]]) -> list[_Result]:
        """Feed each session its portion, recognise what makes chunks; what each is to be told."""
        failures: dict[Session, Refused] = {}
        started = time.perf_counter()
        audio = 0.0
        for session, (samples, last) in zip(turn, portions, strict=True):
            try:
                if session._stream is None:
                    session._stream = self._open(session.options)
                session._stream.feed(samples)
                audio += len(samples) / session.options.rate
                if last:
                    session._stream.end()
            except UserError as err:
                failures[session] = Refused("bad_message", str(err))
            except Exception:
                log.exception("feeding failed", extra={"session": session.id})
                failures[session] = Refused("internal", "a fault of the server")
        ready = {
            s: s._stream for s, (_, last) in zip(turn, portions, strict=True)
            if s not in failures and s._stream is not None and (last or not s._stream.missing)
        }  # fmt: skip
        events: dict[Session, list[Event]] = {}
        if ready:
            try:
                stepped = self.recognizer.step(list(ready.values()))
                events = dict(zip(ready, stepped, strict=True))
            except Exception:
                # their states may be half advanced: none of these can go on, all others do
                log.exception("recognition failed")
                failures |= {s: Refused("internal", "a fault of the server") for s in ready}
        self.metrics.step(len(ready), audio, time.perf_counter() - started)
        now = time.monotonic()
        for session in events:
            self.metrics.latency.observe(now - session._ready_at)
        results: list[_Result] = []
        for session, (_, last) in zip(turn, portions, strict=True):
            failure = failures.get(session)
            new = events.get(session, [])
            self.metrics.words.inc(sum(len(e.words) for e in new if isinstance(e, Final)))
            results.append((session, new, last or failure is not None, failure))
        return results

    def _open(self, options: Options) -> Stream:
        return self.recognizer.stream(
            options.rate, delay=options.delay, endpoint_silence=options.endpoint_silence, history=0
        )


_Result = tuple[Session, list[Event], bool, Refused | None]


def _deliver(results: list[_Result]) -> None:
    for session, events, over, failure in results:
        session._deliver(events, over, failure)
