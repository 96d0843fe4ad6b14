"""Logs as JSON lines on standard error or in a file. What was spoken is not in them unless asked for.

A person at a terminal is greeted instead, and told of what needs attention.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

from ..errors import UserError

# what every LogRecord has; anything else was given as `extra`
_USUAL = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
# of the HTTP library: what it says of single requests may hold keys, in the query
_QUIET = ("uvicorn", "uvicorn.error", "uvicorn.access", "websockets")


class JsonFormatter(logging.Formatter):
    """{"time": ..., "level": ..., "event": ..., and the record's extras}"""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        fields |= {k: v for k, v in vars(record).items() if k not in _USUAL and not k.startswith("color_")}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to standard error as it is when a record comes: who set up the logs may have had another."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class TerminalFormatter(logging.Formatter):
    """A line for a person."""

    def format(self, record: logging.LogRecord) -> str:
        event = record.getMessage()
        if event == "listening":
            url = (
                str(getattr(record, "url", ""))
                .replace("//0.0.0.0:", "//127.0.0.1:")
                .replace("//[::]:", "//[::1]:")
            )
            return f"open {url} (Ctrl-C ends)"
        if event == "draining":
            return (
                f"ending; {getattr(record, 'sessions', 0)} sessions are answered first (Ctrl-C ends at once)"
            )
        return f"reallm: {record.levelname.lower()}: {event}"


def _concerns_a_person(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.getMessage() in ("listening", "draining")


def _handlers(file: str | None) -> list[logging.Handler]:
    handlers: list[logging.Handler] = []
    if file is not None:
        try:
            handlers.append(logging.FileHandler(file, encoding="utf-8"))
        except OSError as err:
            raise UserError(f"--log-file {file}: {err.strerror}") from None
        handlers[0].setFormatter(JsonFormatter())
    at_terminal = sys.stderr is not None and sys.stderr.isatty()
    if at_terminal or not handlers:
        handler = StandardError()
        handler.setFormatter(TerminalFormatter() if at_terminal else JsonFormatter())
        if at_terminal:
            handler.addFilter(_concerns_a_person)
        handlers.append(handler)
    return handlers


def set_up(level: str = "info", file: str | None = None) -> None:
    """Send the server's records, and warnings of what it is built on, where they belong.

    Raises UserError for a file that cannot be written.
    """
    handlers = _handlers(file)
    own = logging.getLogger("speech_reallm")
    own.handlers, own.propagate = list(handlers), False
    own.setLevel(level.upper())
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = list(handlers), False
        logger.setLevel(logging.WARNING)
    # it warns of every odd byte that a stranger sends
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
