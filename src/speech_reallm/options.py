"""How a stream is recognised: the same options in Python, on the command line and in the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import UserError
from .hotwords import DEFAULT_STRENGTH, MAX_STRENGTH, check_terms
from .numbers import FORMS


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """Options of one stream.

    delay: label delay in chunks, one of the model's `delays`; None: the recogniser's own. With less, words come sooner.
    recording: latency is of no concern. The label delay is by default that of recordings, and unless another one is
    asked for, a model with `file_blocks` encodes blocks of seconds: fewer errors, but no event until a block is full.
    endpoint_silence: a turn ends after so many seconds of silence, in the sound and in the text; None: never.
    max_segment: nor does a segment get longer than about so many seconds.
    history: seconds of finished segments that the stream keeps for the transcript that `finish` returns; `math.inf` for
    all, 0 for none.
    turn_events: SpeechStarted, EndpointProposed and EndpointRetracted are reported, too.
    numbers: "words" or "digits", one form for all numbers of English text (`speech_reallm.numbers`); None: as the model
    writes them. A number appears once the word after it has come, or the turn has ended.

    hotwords: names and terms to be recognised rightly, spelled as they are to be written (`speech_reallm.hotwords` has
    the bounds).
    hotwords_strength: how much they are preferred, 0 for not at all; with more, other words are taken for them.

    Raises UserError for values out of range.
    """

    delay: int | None = None
    endpoint_silence: float | None = 0.8
    max_segment: float = 30.0
    history: float = 3600.0
    turn_events: bool = False
    numbers: str | None = None
    hotwords: Sequence[str] = ()
    hotwords_strength: float = DEFAULT_STRENGTH
    recording: bool = False

    def __post_init__(self) -> None:
        if self.endpoint_silence is not None and not self.endpoint_silence > 0:
            raise UserError("endpoint_silence: seconds of silence, more than 0, or None for no endpoints")
        if not self.max_segment > 0 or not self.history >= 0:
            raise UserError("max_segment must be more than 0 seconds, history 0 or more")
        if self.numbers is not None and self.numbers not in FORMS:
            raise UserError(f"numbers must be {' or '.join(FORMS)}, not {str(self.numbers)[:40]!r}")
        strength = self.hotwords_strength
        if (
            isinstance(strength, bool)
            or not isinstance(strength, (int, float))
            or not 0 <= strength <= MAX_STRENGTH
        ):
            raise UserError(f"hotwords_strength must be a number from 0 to {MAX_STRENGTH:g}")
        object.__setattr__(self, "hotwords", check_terms(self.hotwords))
