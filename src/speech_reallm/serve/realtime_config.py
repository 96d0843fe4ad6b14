"""What clients of the realtime protocol may set, in its present and its earlier form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from ..audio import MAX_RATE, MIN_RATE
from . import g711
from .batcher import Options
from .settings import Refused

DEFAULT_RATE = 24000
DEFAULT_SILENCE_MS = 500
MAX_SILENCE_MS = 60000
# from soonest to surest, as clients name them
DELAYS = ("minimal", "low", "medium", "high", "xhigh")
# names of formats: present, earlier
_FORMATS = {
    "audio/pcm": "pcm",
    "audio/pcmu": "pcmu",
    "audio/pcma": "pcma",
    "pcm16": "pcm",
    "g711_ulaw": "pcmu",
    "g711_alaw": "pcma",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """One connection's settings. encoding: pcm, pcmu or pcma; silence_ms: None where the client commits."""

    encoding: str = "pcm"
    rate: int = DEFAULT_RATE
    silence_ms: int | None = DEFAULT_SILENCE_MS
    delay: int | None = None
    language: str | None = None

    def options(self) -> Options:
        silence = None if self.silence_ms is None else self.silence_ms / 1000
        return Options(rate=self.rate, delay=self.delay, endpoint_silence=silence)

    def describe(self, model: str) -> dict[str, Any]:
        """`audio.input` of a session, as clients are shown it."""
        turns = None
        if self.silence_ms is not None:
            turns = {"type": "server_vad", "silence_duration_ms": self.silence_ms}
        kind = {"type": f"audio/{self.encoding}"} | ({"rate": self.rate} if self.encoding == "pcm" else {})
        return {
            "format": kind,
            "transcription": {"model": model, "language": self.language},
            "turn_detection": turns,
            "noise_reduction": None,
        }

    def describe_flat(self, model: str) -> dict[str, Any]:
        """The same as earlier clients know it."""
        now = self.describe(model)
        names = {"pcm": "pcm16", "pcmu": "g711_ulaw", "pcma": "g711_alaw"}
        return {
            "input_audio_format": names[self.encoding],
            "input_audio_transcription": now["transcription"],
            "turn_detection": now["turn_detection"],
        }


def update(config: Config, session: Any, language: str, delays: tuple[int, ...]) -> Config:
    """The config with what a `session.update` names. language, delays: the model's. Raises Refused.

    What has no meaning here (voices, tools, prompts, ...) is ignored, as is the name of the model.
    """
    session = _object(session, "session")
    given = _object(_object(session.get("audio"), "session.audio").get("input"), "session.audio.input")
    flat = {
        "format": session.get("input_audio_format"),
        "transcription": session.get("input_audio_transcription"),
    }
    given = {name: value for name, value in flat.items() if value is not None} | given
    if "turn_detection" in session:
        given.setdefault("turn_detection", session["turn_detection"])
    if given.get("format") is not None:
        config = _format(config, given["format"])
    if given.get("transcription") is not None:
        config = _transcription(config, _object(given["transcription"], "transcription"), language, delays)
    if "turn_detection" in given:
        config = replace(config, silence_ms=_silence(given["turn_detection"]))
    return config


def _format(config: Config, value: Any) -> Config:
    # once a string, now an object
    fields = value if isinstance(value, dict) else {"type": value}
    kind = fields.get("type")
    encoding = _FORMATS.get(kind) if isinstance(kind, str) else None
    if encoding is None:
        raise Refused("bad_request", "format: one of audio/pcm, audio/pcmu, audio/pcma")
    rate = fields.get("rate", DEFAULT_RATE) if encoding == "pcm" else g711.RATE
    if not _is_integer(rate) or not MIN_RATE <= rate <= MAX_RATE:
        raise Refused("bad_request", f"rate must be a whole number from {MIN_RATE} to {MAX_RATE}")
    return replace(config, encoding=encoding, rate=rate)


def _transcription(config: Config, fields: dict[str, Any], language: str, delays: tuple[int, ...]) -> Config:
    wanted = fields.get("language")
    if wanted is not None:
        check_language(wanted, language)
        config = replace(config, language=wanted)
    delay = fields.get("delay")
    if delay is not None:
        if delay not in DELAYS:
            raise Refused("bad_request", f"delay must be one of {', '.join(DELAYS)}")
        place = DELAYS.index(delay) / (len(DELAYS) - 1) * (len(delays) - 1)
        config = replace(config, delay=sorted(delays)[round(place)])
    return config


def check_language(wanted: Any, language: str) -> None:
    """Raises Refused for another language than the model's; "en-GB" is "en"."""
    if not isinstance(wanted, str) or (wanted and wanted.lower().split("-")[0] != language.split("-")[0]):
        raise Refused("bad_request", f"language: this model knows only {language}")


def _silence(value: Any) -> int | None:
    if value is None:
        return None
    fields = _object(value, "turn_detection")
    if fields.get("type", "server_vad") not in ("server_vad", "semantic_vad"):
        raise Refused("bad_request", "turn_detection: server_vad, semantic_vad or null")
    silence = fields.get("silence_duration_ms", DEFAULT_SILENCE_MS)
    if not _is_integer(silence) or not 1 <= silence <= MAX_SILENCE_MS:
        raise Refused("bad_request", f"silence_duration_ms: a whole number from 1 to {MAX_SILENCE_MS}")
    return silence


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _object(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused("bad_request", f"{name} must be an object")
    return value
