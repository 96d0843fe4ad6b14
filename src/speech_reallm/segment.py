"""From pieces to words: the text of one segment, and when its words were spoken."""

from __future__ import annotations

import codecs
import math
from dataclasses import dataclass

from .events import Final, Word
from .punctuation import CLOSING, is_spoken
from .tokenizer import Tokenizer

# speech runs at some 14 letters a second; used where a word's first piece does not tell how long it took
SECONDS_PER_LETTER = 0.07
SHORTEST_WORD = 0.1


@dataclass(slots=True)
class _Word:
    """A word that is being put together.

    All but `text` is of its letters alone, once there are any (`spoken`): chunks are those that its first and
    last piece with letters end in. Punctuation may be written a chunk later, but was not spoken then.
    """

    text: str
    first_text: str
    first_chunk: int
    last_chunk: int
    emitted: float
    log_prob: float
    pieces: int
    spoken: bool = False

    def add(self, part: str, log_prob: float, chunk: int, emitted: float) -> None:
        self.text += part
        spoken = is_spoken(part)
        if self.spoken and not spoken:
            return
        if spoken and not self.spoken:
            # forget what punctuation came before the first letter
            self.spoken = True
            self.first_text, self.first_chunk, self.log_prob, self.pieces = "", chunk, 0.0, 0
        if chunk == self.first_chunk:
            self.first_text += part
        self.last_chunk, self.emitted = chunk, emitted
        self.log_prob += log_prob
        self.pieces += 1


class Segment:
    """Collects pieces; returns what text each adds and, at the end, when the words were spoken."""

    def __init__(
        self, tokenizer: Tokenizer, chunk_seconds: float, after: float = 0.0, start: float = 0.0
    ) -> None:
        """after: end of the last word of the segment before; start: of chunk 0; in seconds."""
        self._tokenizer = tokenizer
        self._chunk_seconds = chunk_seconds
        self._after, self._start = after, start
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._words: list[_Word] = []
        # a space is held back until something follows it: neither text nor partials end in one
        self._new_word = True

    def __bool__(self) -> bool:
        """Is there any text yet?"""
        return bool(self._words)

    def seconds(self, chunk: int) -> float:
        """How long the segment is if `chunk` belongs to it."""
        return (chunk + 1 - self._words[0].first_chunk) * self._chunk_seconds if self._words else 0.0

    def add(self, piece: int, log_prob: float, chunk: int, emitted: float) -> str:
        """Take a piece whose audio ends in `chunk`; returns the text that it appends, maybe none."""
        text = self._utf8.decode(self._tokenizer.text_bytes(piece))
        return self._append(text, log_prob, chunk, emitted)

    def _append(self, text: str, log_prob: float, chunk: int, emitted: float) -> str:
        delta = ""
        for i, part in enumerate(text.split(" ")):
            self._new_word = self._new_word or i > 0
            if not part:
                continue
            # a mark that closes is never a word: it goes to the word before, without a space
            closing = not part.strip(CLOSING)
            if closing and not self._words:
                # its word is in a segment that has ended, and that does not change any more
                continue
            if self._new_word and not closing:
                delta += " " if self._words else ""
                self._words.append(_Word("", "", chunk, chunk, emitted, 0.0, 0))
                self._new_word = False
            self._words[-1].add(part, log_prob, chunk, emitted)
            delta += part
        return delta

    def close(self) -> str:
        """No more pieces come: text for a character that broke off, mostly none."""
        rest = self._utf8.decode(b"", final=True)
        if not rest or not self._words:
            return ""
        word = self._words[-1]
        return self._append(rest, 0.0, word.last_chunk, word.emitted)

    def words_of(self, delta: str, limit: float = math.inf) -> tuple[Word, ...]:
        """The words that the text just added belongs to, as known so far; `limit` as for `final`."""
        count = sum(map(bool, delta.split(" ")))
        return self._times(limit)[-count:] if count else ()

    def words(self, limit: float = math.inf) -> tuple[Word, ...]:
        """The words so far; the last one may still grow."""
        return self._times(limit)

    def final(self, limit: float = math.inf) -> Final:
        """The finished segment; no word ends after `limit` seconds."""
        words = self._times(limit)
        text = " ".join(word.word for word in words)
        return Final(text, words, words[0].start, words[-1].end)

    def _times(self, limit: float) -> tuple[Word, ...]:
        """Estimate starts and ends, those of the letters.

        All that is known of a word's end is its chunk. Words that end in the same chunk are spread
        evenly over it, a single one ends in its middle: that is the least error on average. A word
        begins where its first piece, of so many letters, would if spoken at a usual pace, but not
        before the last word ended.
        """
        per_chunk: dict[int, int] = {}
        for word in self._words:
            per_chunk[word.last_chunk] = per_chunk.get(word.last_chunk, 0) + 1
        seen: dict[int, int] = {}
        words, after = [], self._after
        for word in self._words:
            chunk = word.last_chunk
            seen[chunk] = seen.get(chunk, 0) + 1
            end = self._start + (chunk + seen[chunk] / (per_chunk[chunk] + 1)) * self._chunk_seconds
            end = max(after, min(end, limit))
            first_end = end
            if word.first_chunk < chunk:
                first_end = min(end, self._start + (word.first_chunk + 0.5) * self._chunk_seconds)
            start = first_end - max(SHORTEST_WORD, SECONDS_PER_LETTER * len(word.first_text))
            start = min(max(start, after), end)
            confidence = math.exp(min(0.0, word.log_prob / max(1, word.pieces)))
            words.append(Word(word.text, start, end, confidence, word.emitted))
            after = end
        return tuple(words)
