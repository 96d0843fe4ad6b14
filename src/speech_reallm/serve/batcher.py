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
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..audio import SAMPLE_RATE, check_rate
from ..errors import UserError
from ..events import Event, Final
from ..options import StreamOptions
from ..recognizer import Recognizer
from ..stream import Stream
from .metrics import Metrics
from .settings import Refused, Settings

log = logging.getLogger("speech_reallm.serve")
# audio is fed in no smaller portions than these, seconds
LEAST_FEED = 0.01
# what comes within so many seconds has come together
TOGETHER = 0.05
# a turn is ended by the clock after the end-point silence, the rhythm in which audio comes (at most so many seconds),
# and so many seconds more, for the network
LONGEST_RHYTHM, CLOCK_MARGIN = 1.5, 0.25
# how much of the rhythm is kept from one arrival to the next: a network that has stalled may do so again
RHYTHM_KEPT = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(StreamOptions):
    """What a client chooses: the options of its stream, and `rate`, the sample rate of what it sends, Hz."""

    rate: int = SAMPLE_RATE


class Arrivals:
    """When audio came, and when no more of it is to be expected: silence by the clock. Times are of one clock.

    Audio comes in portions: packets of 20 ms, blocks of a second, or all at once after the network has stalled. A
    portion is as long as the time that it took to come, unless its client sends faster than it speaks; that is the
    rhythm that is waited for.
    """

    def __init__(self) -> None:
        self.last: float | None = None
        self._portion = self._gap = self._rhythm = 0.0

    def came(self, now: float, seconds: float) -> None:
        """`seconds` of audio have come."""
        if self.last is None or now - self.last > TOGETHER:
            self._rhythm = max(RHYTHM_KEPT * self._rhythm, min(self._portion, self._gap))
            # how long the first portion took is not known
            self._gap = LONGEST_RHYTHM if self.last is None else now - self.last
            self._portion = 0.0
        self._portion += seconds
        self.last = now

    def over(self, silence: float) -> float:
        """When silence has lasted so long that the turn is over."""
        assert self.last is not None
        rhythm = min(max(self._rhythm, min(self._portion, self._gap)), LONGEST_RHYTHM)
        return self.last + silence + rhythm + CLOCK_MARGIN


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
        # a sample that was cut in two by the end of a message
        self._half = b""
        self._ended = self._closed = self._busy = self._over = False
        # the turn is to be ended with the audio that has come
        self._turn_ends = False
        self._arrivals = Arrivals()
        self._clock: asyncio.TimerHandle | None = None
        self._ready_at = 0.0
        # events made but not yet taken by the client's side
        self._unsent = 0
        self._outbox: deque[Event] = deque()
        self._failure: Refused | None = None
        self._news, self._room, self._ending = asyncio.Event(), asyncio.Event(), asyncio.Event()

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
        """Take audio: bytes of 16-bit samples, or samples [n], int16 or float32. Waits while too much waits already.

        A sample may be cut in two by the end of a message. After the end, audio is ignored.
        """
        if isinstance(pcm, bytes):
            pcm = self._half + pcm
            whole = len(pcm) & ~1
            self._half = pcm[whole:]
            pcm = np.frombuffer(pcm, dtype="<i2", count=whole // 2)
        if not len(pcm) or self.ended:
            return
        self.samples += len(pcm)
        self._batcher._push(self, pcm)
        self._arrivals.came(time.monotonic(), len(pcm) / self.options.rate)
        self._start_clock()
        while self._pending_samples > self._limit and not self.ended and not self._over:
            self._room.clear()
            await self._room.wait()

    def set_endpoint_silence(self, seconds: float | None) -> None:
        """From now on; what a client changes while it speaks."""
        self.options = replace(self.options, endpoint_silence=seconds)
        stream = self._stream
        if stream is not None:
            stream.endpoint_silence = seconds
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if self._arrivals.last is not None:
            self._start_clock()

    def set_hotwords(self, terms: tuple[str, ...], strength: float) -> None:
        """Prefer these terms, and the server's, in what is recognised from now on. Raises Refused for too many."""
        options = replace(self.options, hotwords=terms, hotwords_strength=strength)
        self.options = self._batcher.check(options)

    def _start_clock(self) -> None:
        """Silence passes by the clock, too, where a client sends none. An upload is not live."""
        silence = self.options.endpoint_silence
        if silence is not None and self._clock is None and self.kind != "upload":
            delay = self._arrivals.over(silence) - time.monotonic()
            self._clock = asyncio.get_running_loop().call_later(max(0.0, delay), self._clock_says)

    def _clock_says(self) -> None:
        self._clock = None
        silence, now = self.options.endpoint_silence, time.monotonic()
        if silence is None or self.ended or self._over:
            return
        if self._batcher._is_behind(self):
            # silence begins when what has come has been recognised: more may wait in the socket
            self._arrivals.last = now
        if now < self._arrivals.over(silence):
            self._start_clock()
        else:
            self._batcher._end_turn(self)

    async def wait_ended(self) -> None:
        """Until no more audio is taken: the client has finished, the server is going down, or the session is over."""
        await self._ending.wait()

    def finish(self, reason: Refused | None = None) -> None:
        """No more audio comes: what has come is answered, then `events` ends. reason: goes to `stopped`."""
        if not self.ended:
            self.stopped = reason
            self._batcher._end(self)
        self._room.set()
        self._ending.set()

    def close(self) -> None:
        """Drop whatever is left and free the place. May be called again."""
        if self._clock is not None:
            self._clock.cancel()
        self._batcher._close(self)
        self._room.set()
        self._ending.set()
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
        if self._over:
            self._ending.set()
        self._failure = self._failure or failure
        self._news.set()
        self._room.set()

    def _follow_options(self, stream: Stream) -> None:
        """In the batcher's thread: what the client has changed meanwhile."""
        options = self.options
        if (options.hotwords, options.hotwords_strength) != (stream.hotwords, stream.hotwords_strength):
            stream.set_hotwords(options.hotwords, options.hotwords_strength)

    # what follows runs under the batcher's lock

    def _is_ready(self) -> bool:
        if self._busy or self._closed or self._over or self._unsent > self._batcher.settings.outbox:
            return False
        if self._ended or self._turn_ends:
            return True
        return self._pending_samples > 0 and self._pending_samples >= self._wanted()

    def _wanted(self) -> int:
        """Samples to be fed next."""
        if self._stream is None:
            chunk = self._batcher.recognizer.model.chunk_seconds
            return int(np.ceil(chunk * self.options.rate))
        return max(self._stream.missing, int(LEAST_FEED * self.options.rate))

    def _take(self) -> _Portion:
        """At most a chunk of what waits."""
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
        ends_turn = self._turn_ends and not self._pending
        if ends_turn:
            self._turn_ends = False
        return _Portion(audio, self._ended and not self._pending, ends_turn)


@dataclass(frozen=True, slots=True)
class _Portion:
    """Samples for one turn of the loop. last: no more come; ends_turn: none for now."""

    samples: np.ndarray
    last: bool
    ends_turn: bool


class Batcher:
    """Owns the recogniser's loop. `start` and all of its public methods belong to the event loop."""

    def __init__(self, recognizer: Recognizer, settings: Settings, metrics: Metrics) -> None:
        self.recognizer, self.settings, self.metrics = recognizer, settings, metrics
        self.draining = False
        self._sessions: set[Session] = set()
        # sessions whose chunk waits, the longest waiting first; a dict for its order. Recordings have a queue and a
        # thread of their own: one of their blocks is seconds of audio, for which nobody who speaks should wait
        self._ready: dict[bool, dict[Session, None]] = {False: {}, True: {}}
        self._wake = threading.Condition()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(recordings,), name=name, daemon=True)
            for recordings, name in ((False, "recogniser"), (True, "recogniser of recordings"))
        ]
        self._emptied = asyncio.Event()
        metrics.watch(lambda: len(self._sessions), lambda: self.waiting)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """End the threads; sessions that are still open get no more events."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._loop is not None:
            for thread in self._threads:
                await asyncio.to_thread(thread.join)

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def sessions_by_kind(self) -> dict[str, int]:
        return dict(Counter(session.kind for session in self._sessions))

    @property
    def waiting(self) -> int:
        """Sessions whose chunk waits to be recognised."""
        return sum(map(len, self._ready.values()))

    @property
    def healthy(self) -> bool:
        return all(thread.is_alive() for thread in self._threads) and not self.draining

    def check(self, options: Options) -> Options:
        """The options with all defaults filled in. Raises Refused for those out of range."""
        try:
            check_rate(options.rate, "rate")
            delay = options.delay
            if delay is None and not options.recording:
                delay = self.recognizer.delay
            if delay is not None and delay not in self.recognizer.delays:
                known = ", ".join(map(str, self.recognizer.delays))
                raise UserError(f"delay: {delay} is not among this model's: {known}")
            hotwords = (*self.settings.hotwords, *options.hotwords)
            numbers = options.numbers or self.settings.numbers
            return replace(options, delay=delay, hotwords=hotwords, numbers=numbers)
        except UserError as err:
            raise Refused("bad_request", str(err)) from None

    def admit(self) -> None:
        """Raises Refused where there is no place for another session."""
        if self.draining:
            raise Refused("draining", "the server is going down; connect anew")
        if len(self._sessions) >= self.settings.sessions:
            raise Refused("busy", "the server is full; try again later")
        if self.lag() > self.settings.lag_seconds:
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

    def lag(self) -> float:
        """Seconds for which the longest waiting chunk of a live session has waited."""
        with self._wake:
            first = next(iter(self._ready[False]), None)
            return time.monotonic() - first._ready_at if first else 0.0

    def _push(self, session: Session, samples: np.ndarray) -> None:
        with self._wake:
            # the turn is not over after all, if it has not been ended yet
            session._turn_ends = False
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

    def _end_turn(self, session: Session) -> None:
        with self._wake:
            if not session.ended:
                session._turn_ends = True
                self._offer(session)

    def _is_behind(self, session: Session) -> bool:
        """Does audio wait that makes a chunk?"""
        with self._wake:
            return session._busy or session in self._queue(session) or session._unsent > self.settings.outbox

    def _close(self, session: Session) -> None:
        with self._wake:
            session._closed = True
            self._queue(session).pop(session, None)
            session._pending.clear()
            session._pending_samples = 0
            if not session._busy:
                session._stream = None
        self._sessions.discard(session)
        if not self._sessions:
            self._emptied.set()

    def _offer(self, session: Session) -> None:
        """Queue a session up if it has a chunk; under the lock."""
        queue = self._queue(session)
        if session not in queue and session._is_ready():
            session._ready_at = time.monotonic()
            queue[session] = None
            self._wake.notify_all()

    def _queue(self, session: Session) -> dict[Session, None]:
        return self._ready[session.options.recording]

    # the threads

    def _run(self, recordings: bool) -> None:
        queue = self._ready[recordings]
        while True:
            with self._wake:
                while not queue and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return
                turn = list(itertools.islice(queue, self.settings.batch))
                portions = []
                for session in turn:
                    del queue[session]
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
                for (session, events, over, _), portion in zip(results, portions, strict=True):
                    session._busy = False
                    session._recognised_samples += len(portion.samples)
                    session._unsent += len(events)
                    if over or session._closed:
                        session._stream = None
                        session._ended = True
                    else:
                        self._offer(session)
            assert self._loop is not None, "start() sets it before these threads run"
            try:
                self._loop.call_soon_threadsafe(_deliver, results)
            except RuntimeError:
                # the event loop is gone, and with it everyone who would listen
                return

    def _turn(self, turn: list[Session], portions: list[_Portion]) -> list[_Result]:
        """Feed each session its portion, recognise what makes chunks; what each is to be told."""
        failures: dict[Session, Refused] = {}
        started = time.perf_counter()
        audio = 0.0
        for session, portion in zip(turn, portions, strict=True):
            try:
                if session._stream is None:
                    session._stream = self._open(session.options)
                session._follow_options(session._stream)
                session._stream.feed(portion.samples)
                audio += len(portion.samples) / session.options.rate
                if portion.last:
                    session._stream.end()
                elif portion.ends_turn:
                    session._stream.end_turn()
            except UserError as err:
                failures[session] = Refused("bad_message", str(err))
            except Exception:
                log.exception("feeding failed", extra={"session": session.id})
                failures[session] = Refused("internal", "a fault of the server")
        ready = {
            s: s._stream for s, portion in zip(turn, portions, strict=True)
            if s not in failures
            and s._stream is not None
            and (portion.last or portion.ends_turn or not s._stream.missing)
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
            if not session.options.recording:
                self.metrics.chunk_latency(now - session._ready_at)
        results: list[_Result] = []
        for session, portion in zip(turn, portions, strict=True):
            failure = failures.get(session)
            new = events.get(session, [])
            self.metrics.words.inc(sum(len(e.words) for e in new if isinstance(e, Final)))
            results.append((session, new, portion.last or failure is not None, failure))
        return results

    def _open(self, options: Options) -> Stream:
        return self.recognizer.stream(options.rate, options=options, history=0)


_Result = tuple[Session, list[Event], bool, Refused | None]


def _deliver(results: list[_Result]) -> None:
    for session, events, over, failure in results:
        session._deliver(events, over, failure)
