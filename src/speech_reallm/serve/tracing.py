"""A span for every session, for OpenTelemetry; nothing where its package is missing or no exporter is set.

Spans go where the usual variables of OpenTelemetry say (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, ...), by
OTLP over HTTP. They hold how long a session took and how it ended, and never what was spoken.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from .. import __version__
from ..errors import UserError
from ..extras import pip_command

SERVICE = "speech-reallm"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class SessionSpan(Protocol):
    """The span of one session."""

    def first_word(self) -> None:
        """The first text has gone to the client."""

    def end(self, code: str, **attributes: float) -> None:
        """The session is over; code: "ok", or why it ended before its time."""


class Tracing(Protocol):
    def session(self, session: str, kind: str, rate: int) -> SessionSpan:
        """A session has begun."""

    def close(self) -> None:
        """Send what is left. Blocking."""


class _Nothing:
    """No tracing, and a span of none."""

    def session(self, session: str, kind: str, rate: int) -> SessionSpan:
        return self

    def first_word(self) -> None:
        pass

    def end(self, code: str, **attributes: float) -> None:
        pass

    def close(self) -> None:
        pass


class _Span:
    def __init__(self, span: Any) -> None:
        self._span, self._spoken = span, False

    def first_word(self) -> None:
        if not self._spoken:
            self._spoken = True
            self._span.add_event("first word")

    def end(self, code: str, **attributes: float) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("reallm.end", code)
        for name, value in attributes.items():
            self._span.set_attribute(f"reallm.{name}", value)
        if code == "internal":
            self._span.set_status(Status(StatusCode.ERROR, code))
        self._span.end()


class OpenTelemetry:
    """Spans by OpenTelemetry's SDK. exporter: where they go, as the SDK has it; None for OTLP."""

    def __init__(self, exporter: Any = None) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": SERVICE}
        # of its own, not the process's: several servers can live in one
        self._provider = TracerProvider(resource=Resource.create({**named, "service.version": __version__}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(SERVICE, __version__)

    def session(self, session: str, kind: str, rate: int) -> SessionSpan:
        attributes: dict[str, Any] = {"reallm.session": session, "reallm.kind": kind, "reallm.rate": rate}
        return _Span(self._tracer.start_span(f"session {kind}", attributes=attributes))

    def close(self) -> None:
        self._provider.shutdown()


def set_up() -> Tracing:
    """Tracing where the environment asks for it. Raises UserError where its package is missing then."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return _Nothing()
    try:
        return OpenTelemetry()
    except ImportError:
        raise UserError(
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, which need more packages: "
            + pip_command("opentelemetry-sdk>=1.25", "opentelemetry-exporter-otlp-proto-http>=1.25")
        ) from None
