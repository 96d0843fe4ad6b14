"""What clients of the realtime protocol may set, in its present and its earlier form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .. import g711
from ..audio import MAX_RATE, MIN_RATE
from ..hotwords import DEFAULT_STRENGTH, terms_of_prompt
from .batcher import Options
from .settings import Refused
from .values import check_language, language_code, read_numbers, read_strength, whole_number

DEFAULT_RATE = 24000
DEFAULT_SILENCE_MS = 500
MAX_SILENCE_MS = 60000
# characters of a prompt that are shown again
MAX_PROMPT = 4000
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
    """One connection's settings. encoding: pcm, pcmu or pcma; silence_ms: None where the client commits.

    proposed_ends: the end of a turn is told as soon as it is likely, and taken back if it was none.
    """

    encoding: str = "pcm"
    rate: int = DEFAULT_RATE
    silence_ms: int | None = DEFAULT_SILENCE_MS
    delay: int | None = None
    language: str | None = None
    proposed_ends: bool = False
    numbers: str | None = None
    prompt: str = ""
    hotwords: tuple[str, ...] = ()
    hotwords_strength: float = DEFAULT_STRENGTH

    @property
    def silence(self) -> float | None:
        """Seconds that end a turn."""
        return None if self.silence_ms is None else self.silence_ms / 1000

    def options(self) -> Options:
        return Options(
            rate=self.rate,
            delay=self.delay,
            endpoint_silence=self.silence,
            turn_events=True,
            numbers=self.numbers,
            hotwords=self.hotwords,
            hotwords_strength=self.hotwords_strength,
        )

    def takes_audio_as(self, other: Config) -> bool:
        """Can a stream that was opened with the other config go on with this one?"""
        return (self.encoding, self.rate, self.delay, self.numbers) == (
            other.encoding,
            other.rate,
            other.delay,
            other.numbers,
        )

    def describe(self, model: str) -> dict[str, Any]:
        """`audio.input` of a session, as clients are shown it."""
        turns = None
        if self.silence_ms is not None:
            turns = {"type": "server_vad", "silence_duration_ms": self.silence_ms}
            if self.proposed_ends:
                turns["proposed_ends"] = True
        transcription: dict[str, Any] = {"model": model, "language": self.language, "prompt": self.prompt}
        if self.numbers is not None:
            transcription["numbers"] = self.numbers
        kind = {"type": f"audio/{self.encoding}"} | ({"rate": self.rate} if self.encoding == "pcm" else {})
        return {
            "format": kind,
            "transcription": transcription,
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

    What has no meaning here (voices, tools, instructions, ...) is ignored, as is the name of the model. A prompt is
    taken for hot words (`speech_reallm.hotwords.terms_of_prompt`).
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
        config = _turn_detection(config, given["turn_detection"])
    return config


def _format(config: Config, value: Any) -> Config:
    # once a string, now an object
    fields = value if isinstance(value, dict) else {"type": value}
    kind = fields.get("type")
    encoding = _FORMATS.get(kind) if isinstance(kind, str) else None
    if encoding is None:
        raise Refused("bad_request", "format: one of audio/pcm, audio/pcmu, audio/pcma")
    given = fields.get("rate") if encoding == "pcm" else g711.RATE
    rate = DEFAULT_RATE if given is None else whole_number(given, "rate", MIN_RATE, MAX_RATE)
    return replace(config, encoding=encoding, rate=rate)


def _transcription(config: Config, fields: dict[str, Any], language: str, delays: tuple[int, ...]) -> Config:
    wanted = fields.get("language")
    if wanted is not None:
        check_language(wanted, language)
        config = replace(config, language=wanted if language_code(wanted) else None)
    delay = fields.get("delay")
    if delay is not None:
        if delay not in DELAYS:
            raise Refused("bad_request", f"delay must be one of {', '.join(DELAYS)}")
        place = DELAYS.index(delay) / (len(DELAYS) - 1) * (len(delays) - 1)
        config = replace(config, delay=sorted(delays)[round(place)])
    if fields.get("prompt") is not None:
        if not isinstance(fields["prompt"], str):
            raise Refused("bad_request", "prompt must be text")
        config = replace(
            config, prompt=fields["prompt"][:MAX_PROMPT], hotwords=terms_of_prompt(fields["prompt"])
        )
    if fields.get("hotwords_strength") is not None:
        config = replace(config, hotwords_strength=read_strength(fields["hotwords_strength"]))
    if "numbers" in fields:
        config = replace(config, numbers=read_numbers(fields["numbers"]))
    return config


def _turn_detection(config: Config, value: Any) -> Config:
    if value is None:
        return replace(config, silence_ms=None, proposed_ends=False)
    fields = _object(value, "turn_detection")
    if fields.get("type", "server_vad") not in ("server_vad", "semantic_vad"):
        raise Refused("bad_request", "turn_detection: server_vad, semantic_vad or null")
    given = fields.get("silence_duration_ms")
    silence = DEFAULT_SILENCE_MS
    if given is not None:
        silence = whole_number(given, "silence_duration_ms", 1, MAX_SILENCE_MS)
    return replace(config, silence_ms=silence, proposed_ends=fields.get("proposed_ends") is True)


def _object(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused("bad_request", f"{name} must be an object")
    return value
