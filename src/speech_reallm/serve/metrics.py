"""Figures for Prometheus. One registry for each server, so that several can live in a process."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
# how fast older steps are forgotten in the running real-time factor
FRESH = 0.05
# latencies that quantiles are taken of: so many at most, none older than so many seconds
RECENT, RECENT_SECONDS = 2000, 60.0
# of the worst lag of the event loop from one look at it to the next
LAG_KEPT = 0.9


class Metrics:
    """What is counted; the names are part of the interface."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        made: dict[str, Any] = {"registry": self.registry}
        self.opened = Counter("reallm_sessions_opened", "Sessions admitted, by protocol", ["kind"], **made)
        self.refused = Counter(
            "reallm_refused", "Sessions and requests refused, by reason", ["reason"], **made
        )
        self.failed = Counter(
            "reallm_failed", "Sessions ended before their time, by reason", ["reason"], **made
        )
        self.audio = Counter("reallm_audio_seconds", "Audio recognised", **made)
        self.compute = Counter("reallm_compute_seconds", "Time spent in recognition", **made)
        self.words = Counter("reallm_words", "Words in finished segments", **made)
        self.latency = Histogram(
            "reallm_chunk_latency_seconds",
            "From a chunk of audio being complete to its words being ready to send",
            buckets=SECONDS,
            **made,
        )
        self.batch = Histogram("reallm_batch_size", "Streams stepped together", buckets=SIZES, **made)
        self.factor = Gauge("reallm_real_time_factor", "Computing per second of audio, lately", **made)
        self._lag_gauge = Gauge(
            "reallm_event_loop_lag_seconds",
            "How late the event loop is, the most of the last seconds",
            **made,
        )
        self._lately = (0.0, 0.0)
        # of step(), which the threads of live sessions and of recordings call
        self._lock = threading.Lock()
        self._latencies: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self.loop_lag = 0.0

    def chunk_latency(self, seconds: float) -> None:
        """A chunk's words were ready so long after it was complete."""
        self.latency.observe(seconds)
        self._latencies.append((time.monotonic(), seconds))

    def latency_quantiles(self) -> dict[str, float | None]:
        """p50 and p95 of the last minute; None without a chunk in it."""
        since = time.monotonic() - RECENT_SECONDS
        values = sorted(seconds for at, seconds in list(self._latencies) if at >= since)

        def quantile(share: float) -> float | None:
            return round(values[min(len(values) - 1, int(share * len(values)))], 4) if values else None

        return {"p50": quantile(0.5), "p95": quantile(0.95)}

    def event_loop_lag(self, seconds: float) -> None:
        """The event loop was so late just now."""
        self.loop_lag = max(seconds, LAG_KEPT * self.loop_lag)
        self._lag_gauge.set(self.loop_lag)

    @property
    def real_time_factor(self) -> float | None:
        """Computing per second of audio, lately; None before the first."""
        busy, received = self._lately
        return round(busy / received, 4) if received > 0 else None

    def watch(self, sessions: Callable[[], int], queue: Callable[[], int]) -> None:
        """Gauges that are read when asked for: sessions that are open, and those whose chunk waits."""
        for name, text, function in (
            ("reallm_sessions", "Sessions open", sessions),
            ("reallm_queue_depth", "Sessions with a chunk of audio that waits to be recognised", queue),
        ):
            Gauge(name, text, registry=self.registry).set_function(function)

    def step(self, streams: int, audio: float, seconds: float) -> None:
        """A batch of `streams`, 0 if only audio was taken, spent `seconds` on `audio` seconds of speech."""
        if streams:
            self.batch.observe(streams)
        self.compute.inc(seconds)
        self.audio.inc(audio)
        with self._lock:
            busy, received = (
                (1 - FRESH) * old + new for old, new in zip(self._lately, (seconds, audio), strict=True)
            )
            self._lately = (busy, received)
        if received > 0:
            self.factor.set(busy / received)

    def text(self) -> bytes:
        return generate_latest(self.registry)
