"""What a balancer and an operator ask: may more sessions come, and how well are those there served?"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .settings import Refused

if TYPE_CHECKING:
    from .metrics import Metrics
    from .service import Service

# how often the event loop is asked how late it is
WATCH_SECONDS = 0.25


async def watch_loop(metrics: Metrics) -> None:
    """Measure how late the event loop comes to what is due; forever."""
    while True:
        due = time.monotonic() + WATCH_SECONDS
        await asyncio.sleep(WATCH_SECONDS)
        metrics.event_loop_lag(max(0.0, time.monotonic() - due))


async def ready(request: Request) -> Response:
    """200 while another session would be taken; 503 when the server is full, behind or going down."""
    service: Service = request.app.state.service
    try:
        if not (service.batcher.healthy or service.batcher.draining):
            raise Refused("internal", "the recogniser has stopped")
        service.batcher.admit()
    except Refused as refused:
        return JSONResponse({"ready": False, "reason": refused.code, "message": refused.message}, 503)
    return JSONResponse({"ready": True})


async def status(request: Request) -> Response:
    """Figures of this moment, for people and scripts; /metrics has them over time."""
    service: Service = request.app.state.service
    service.guard.check_key(request)
    return JSONResponse(describe(service))


def describe(service: Service) -> dict[str, Any]:
    """sessions: open now. Seconds, of the last minute or so; None where there was nothing to measure."""
    batcher, metrics = service.batcher, service.metrics
    state = "ok" if batcher.healthy else "draining" if batcher.draining else "dead"
    return {
        "status": state,
        "sessions": batcher.sessions,
        "sessions_by_kind": batcher.sessions_by_kind(),
        "capacity": service.settings.sessions,
        "waiting_chunks": batcher.waiting,
        "longest_wait_seconds": round(batcher.lag(), 4),
        "event_loop_lag_seconds": round(metrics.loop_lag, 4),
        "chunk_latency_seconds": metrics.latency_quantiles(),
        "real_time_factor": metrics.real_time_factor,
        "uptime_seconds": round(time.monotonic() - service.started, 1),
    }
