"""Logs as JSON lines on standard error. What was said is not in them unless asked for."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

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


def set_up(level: str = "info") -> None:
    """Send the server's records, and warnings of what it is built on, to standard error."""
    handler = StandardError()
    handler.setFormatter(JsonFormatter())
    own = logging.getLogger("speech_reallm")
    own.handlers, own.propagate = [handler], False
    own.setLevel(level.upper())
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
    # it warns of every odd byte that a stranger sends
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
