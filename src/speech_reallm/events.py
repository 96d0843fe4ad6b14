"""What a stream reports: events while it runs, a transcript at its end.

All times are seconds of audio, rounded to milliseconds, so that they are the same wherever they are shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


class _Rounded:
    """Numbers as they are shown: 1.32 and not 1.3199999999999998. Rounding keeps the order of times."""

    __slots__ = ()
    # digits behind the point, where it is not a time
    _DIGITS: ClassVar[dict[str, int]] = {"confidence": 4, "rtf": 4}

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:  # type: ignore[attr-defined]
            value = getattr(self, name)
            if isinstance(value, float):
                object.__setattr__(self, name, round(float(value), self._DIGITS.get(name, 3)))


@dataclass(frozen=True, slots=True)
class Word(_Rounded):
    """One word, with the punctuation that the model writes to it ("seems,").

    The model says which chunk a piece of text ends in, no more; `start` and `end` are estimated from
    that. They never run backwards and never overlap, but are good to about half a chunk only.
    `confidence` is the geometric mean of the probabilities of the word's pieces. `emitted`: how much
    audio had been used when the last piece of the word came out; `emitted - end` is the delay of the
    word by the model's own reckoning. All of these are of the word's letters and digits: punctuation
    after them, which may come a little later, changes nothing but `word`.
    """

    word: str
    start: float
    end: float
    confidence: float
    emitted: float


@dataclass(frozen=True, slots=True)
class Partial(_Rounded):
    """More text of the current segment. Append it: what was shown is never taken back.

    All `text` of a segment, joined without anything between, is the `text` of its Final. It may end in
    the middle of a word, and punctuation may come after its word. `time`: how much audio had been used.
    `words`: those that `text` belongs to, as far as they are known; the first is the last one of the Partial
    before, grown, if `text` goes on with it.
    """

    text: str
    time: float
    # estimates that the Final puts right; not what makes two partials the same
    words: tuple[Word, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Final(_Rounded):
    """A finished segment. Comes once for each segment and never changes afterwards."""

    text: str
    words: tuple[Word, ...]
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Endpoint(_Rounded):
    """The speaker has paused: there was silence up to `time`. Follows the Final of the segment, and ends the turn."""

    time: float


@dataclass(frozen=True, slots=True)
class SpeechStarted(_Rounded):
    """A turn has begun: its first word is about to come. `time`: when its sound began. Only with `turn_events`."""

    time: float


@dataclass(frozen=True, slots=True)
class EndpointProposed(_Rounded):
    """The turn may be over: it has been silent since `time`. Only with `turn_events`.

    It is confirmed by Endpoint or taken back by EndpointRetracted. The last words may come after it. An Endpoint
    may come without it.
    """

    time: float


@dataclass(frozen=True, slots=True)
class EndpointRetracted(_Rounded):
    """The turn goes on: there was sound again at `time`. Only with `turn_events`."""

    time: float


Event = Partial | Final | Endpoint | SpeechStarted | EndpointProposed | EndpointRetracted


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript(_Rounded):
    """The text of a whole file or stream.

    `duration`: seconds of audio. `rtf`: seconds of computing (of work, not of waiting) per second of audio, 0 for
    no audio; transcripts that differ in nothing else are equal.
    `events`: those that finishing the stream brought about, not reported before. `warnings`: what was wrong with the
    file, so that the text may lack something (damage, a missing end); in sentences for people.
    """

    text: str
    words: tuple[Word, ...]
    segments: tuple[Final, ...]
    duration: float
    rtf: float = field(compare=False)
    file: str | None = None
    events: tuple[Event, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        segments: list[Final],
        *,
        duration: float,
        seconds: float,
        file: str | None = None,
        events: tuple[Event, ...] = (),
        warnings: tuple[str, ...] = (),
    ) -> Transcript:
        """Put segments together; `seconds` of computing went into them."""
        return cls(
            text=" ".join(s.text for s in segments),
            words=tuple(word for s in segments for word in s.words),
            segments=tuple(segments),
            duration=duration,
            rtf=seconds / duration if duration > 0 else 0.0,
            file=file,
            events=events,
            warnings=warnings,
        )
