"""Streaming speech recognition with a decoder-only language model.

from speech_reallm import Recognizer

print(Recognizer.load().transcribe("talk.mp3").text)
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

# Nothing leaves the machine. ONNX Runtime's official builds send usage data to Microsoft from 1.32 on unless this
# is set before the library is first imported, which is why it stands here and not where the library is used.
# `_TELEMETRY_MAY_RUN`: another part of the program was faster; `engine` warns of it.
_TELEMETRY_MAY_RUN = "onnxruntime" in sys.modules and os.environ.get("ORT_DISABLE_TELEMETRY") != "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .errors import UserError
    from .events import (
        Endpoint,
        EndpointProposed,
        EndpointRetracted,
        Event,
        Final,
        Partial,
        SpeechStarted,
        Transcript,
        Word,
    )
    from .options import StreamOptions
    from .recognizer import Recognizer
    from .sources import AudioSource
    from .stream import Stream

# imported when first used: `import speech_reallm` costs nothing
_EXPORTS = {
    "Recognizer": "recognizer",
    "Stream": "stream",
    "Partial": "events",
    "Final": "events",
    "Endpoint": "events",
    "EndpointProposed": "events",
    "EndpointRetracted": "events",
    "SpeechStarted": "events",
    "Event": "events",
    "Word": "events",
    "Transcript": "events",
    "StreamOptions": "options",
    "AudioSource": "sources",
    "UserError": "errors",
}

__all__ = [
    "AudioSource",
    "Endpoint",
    "EndpointProposed",
    "EndpointRetracted",
    "Event",
    "Final",
    "Partial",
    "Recognizer",
    "SpeechStarted",
    "Stream",
    "StreamOptions",
    "Transcript",
    "UserError",
    "Word",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
