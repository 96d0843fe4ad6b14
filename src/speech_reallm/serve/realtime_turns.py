"""From a stream's events to those of the realtime protocols. Nothing here waits: events in, messages out."""

from __future__ import annotations

import math
import secrets
from typing import Any, Protocol

from ..events import Endpoint, EndpointProposed, EndpointRetracted, Event, Final, Partial, SpeechStarted
from ..recognizer import Recognizer
from .plain import word_json

Messages = list[dict[str, Any]]


class Turns(Protocol):
    """A dialect. Times are seconds since the connection's first sample."""

    @property
    def in_turn(self) -> bool:
        """Has a turn begun that is not over?"""

    def receive(self, event: Event, offset: float) -> Messages:
        """What the stream reports; offset: what its times are to be added to."""

    def commit(self) -> Messages:
        """The client has ended the turn; what is still inside the recogniser follows, then `complete`."""

    def complete(self, now: float) -> Messages:
        """All of the turn has been recognised; now: seconds of audio so far."""

    def clear(self) -> None:
        """The client has thrown away the turn."""


class OpenAITurns:
    """Items of a conversation, one a turn. With `detect`, turns end where the speaker pauses.

    With `proposed_ends` it is told, too, where they may end.

    Deltas of a turn come while it is spoken; its transcript is that of its deltas joined.
    """

    def __init__(self) -> None:
        self.detect, self.proposed_ends = True, False
        self._item: str | None = None
        self._previous: str | None = None
        self._committed = False
        self._text, self._start = "", 0.0
        self._words: list[dict[str, Any]] = []
        self._segment_open = False

    @property
    def in_turn(self) -> bool:
        return self._item is not None

    def receive(self, event: Event, offset: float) -> Messages:
        if isinstance(event, SpeechStarted):
            return self._begin(offset + event.time)
        if isinstance(event, EndpointProposed):
            return self._may_end("proposed", offset + event.time)
        if isinstance(event, EndpointRetracted):
            return self._may_end("retracted", offset + event.time)
        if isinstance(event, Partial):
            # a turn that was ended by its length goes on as another
            start = offset + (event.words[0].start if event.words else event.time)
            return [*self._begin(start), self._delta(event.text)]
        if isinstance(event, Final):
            self._segment_open = False
            self._words += [shifted(word_json(word), offset) for word in event.words]
            # the pause, if there is one, is the next event; it has nothing to add but its time
            return self._end(offset + event.end) if self.detect and not self._committed else []
        assert isinstance(event, Endpoint)
        return []

    def _may_end(self, what: str, time: float) -> Messages:
        if not self.proposed_ends or not self.detect or self._item is None or self._committed:
            return []
        return [
            {
                "type": f"input_audio_buffer.speech_stop_{what}",
                "audio_end_ms" if what == "proposed" else "audio_start_ms": round(1000 * time),
                "item_id": self._item,
            }
        ]

    def commit(self) -> Messages:
        messages = [] if self._item else self._open()
        self._committed = True
        return [*messages, *self._commit()]

    def complete(self, now: float) -> Messages:
        if self._item is None:
            return []
        messages = [] if self._committed else self._commit()
        content = {"item_id": self._item, "content_index": 0}
        done = {
            "type": "conversation.item.input_audio_transcription.completed",
            **content,
            "transcript": self._text,
            "usage": {"type": "duration", "seconds": round(max(0.0, now - self._start), 3)},
            "words": self._words,
        }
        self._previous, self._start = self._item, now
        self.clear()
        return [*messages, done]

    def clear(self) -> None:
        self._item, self._committed, self._segment_open = None, False, False
        self._text, self._words = "", []

    def _open(self) -> Messages:
        self._item = f"item_{secrets.token_hex(8)}"
        return []

    def _begin(self, start: float) -> Messages:
        if self._item is not None:
            return []
        self._open()
        if not self.detect:
            return []
        self._start = start
        return [
            {
                "type": "input_audio_buffer.speech_started",
                "audio_start_ms": round(1000 * start),
                "item_id": self._item,
            }
        ]

    def _delta(self, text: str) -> dict[str, Any]:
        # segments within a turn are joined as words are
        if self._text and not self._segment_open:
            text = f" {text}"
        self._segment_open = True
        self._text += text
        return {
            "type": "conversation.item.input_audio_transcription.delta",
            "item_id": self._item,
            "content_index": 0,
            "delta": text,
        }

    def _end(self, end: float) -> Messages:
        stopped = {
            "type": "input_audio_buffer.speech_stopped",
            "audio_end_ms": round(1000 * end),
            "item_id": self._item,
        }
        return [stopped, *self.complete(end)]

    def _commit(self) -> Messages:
        content = [{"type": "input_audio", "transcript": None}]
        item = {
            "id": self._item,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": content,
        }
        previous = {"previous_item_id": self._previous}
        return [
            {"type": "input_audio_buffer.committed", "item_id": self._item, **previous},
            {"type": "conversation.item.added", "item": item, **previous},
            {"type": "conversation.item.done", "item": item, **previous},
        ]


class VllmTurns:
    """The dialect of vLLM: deltas, and the whole text once the client says that this was all."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._text, self._segment_open, self._start = "", False, 0.0

    @property
    def in_turn(self) -> bool:
        return bool(self._text)

    def receive(self, event: Event, offset: float) -> Messages:
        if isinstance(event, Final):
            self._segment_open = False
        if not isinstance(event, Partial):
            return []
        text = f" {event.text}" if self._text and not self._segment_open else event.text
        self._segment_open = True
        self._text += text
        return [{"type": "transcription.delta", "delta": text}]

    def commit(self) -> Messages:
        return []

    def complete(self, now: float) -> Messages:
        text, seconds = self._text, now - self._start
        self.clear()
        self._start = now
        # what the decoder took and gave: an embedding for every chunk, and pieces
        prompt = math.ceil(max(0.0, seconds) / self._recognizer.model.chunk_seconds)
        completion = self._recognizer.count_pieces(text)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        return [{"type": "transcription.done", "text": text, "usage": usage}]

    def clear(self) -> None:
        self._text, self._segment_open = "", False


def shifted(word: dict[str, Any], offset: float) -> dict[str, Any]:
    return word | {"start": round(word["start"] + offset, 3), "end": round(word["end"] + offset, 3)}
