"""When a turn ends: silence in the sound and in the text. An end is proposed, then confirmed or retracted.

The text alone is no measure of silence: a word is written when it is complete, so that a long word, or one that the
model writes late, looks like a pause. The sound alone is none either: it cannot tell whether the words are out. An
end-point therefore asks for both: the sound was silent for the time that was set, and the text has caught up with it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from .audio import SAMPLE_RATE

FRAME = SAMPLE_RATE // 100
FRAME_SECONDS = FRAME / SAMPLE_RATE
WINDOW = 2 * FRAME
# the bands whose levels are followed, Hz: no hum and rumble below, and nothing that a telephone does not carry
BANDS = ((200, 700), (700, 1800), (1800, 4000))
# the level of the room is the lowest of so many seconds, that of speech the highest
FLOOR_SECONDS, PEAK_SECONDS = 5.0, 10.0
# dB in a band: a muted line is lower than any room and says nothing about it; no room counts as quieter than the other
MUTED, LOWEST_FLOOR = -100.0, -70.0
# there is sound where a band is so many dB above the room: a quarter of the way to speech, within these bounds
LEAST_ABOVE, MOST_ABOVE, SHARE_ABOVE = 7.0, 10.0, 0.25
# dB between room and speech; with less, loud and silent cannot be told apart
LEAST_RANGE = 12.0
# in frames: a click is shorter than sound (it fills four, which overlap), a stop consonant than silence
SHORTEST_SOUND, SHORTEST_SILENCE = 5, 5
# the faint end of a word and the faint beginning of the next count as silence: so many seconds are taken off
FAINT_SECONDS = 0.04
# an end is proposed after so many seconds of silence in the sound
PROPOSE_SECONDS = 0.2
# seconds of audio beyond the last sound that the text must have covered: a word may be written a little late
TEXT_MARGIN = 0.24
# where the sound is never silent (music, a crowd) the text alone ends a turn, after so many seconds more
NOISY_SECONDS = 2.0
MAX_PAUSES = 16

_HANN = np.hanning(WINDOW).astype(np.float32)
_FREQUENCIES = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
# [bins, bands]; scaled so that a full-scale tone has a level of -3 dB
_BAND_WEIGHTS = (
    np.stack([np.searchsorted((low, high), _FREQUENCIES, "right") == 1 for low, high in BANDS], axis=1)
    * (16 / 3)
    / WINDOW**2
)


class SoundActivity:
    """Where there is sound above the level of the room, in frames of 10 ms. Memory is constant.

    Speech is seldom louder than a noisy room at all frequencies, so each band has its own level. Times are seconds
    from the first sample after the last `restart`.
    """

    def __init__(self) -> None:
        self._floors: list[_Extremes] = [deque() for _ in BANDS]
        self._peaks: list[_Extremes] = [deque() for _ in BANDS]
        self._clock = 0.0
        self.restart()

    def restart(self) -> None:
        """Time begins anew, in silence; what is known of the room is kept."""
        self.time = 0.0
        # pauses that are over, (start, end), the oldest first
        self.pauses: deque[tuple[float, float]] = deque(maxlen=MAX_PAUSES)
        # when the present pause began, None while there is sound
        self.silent_since: float | None = 0.0
        self._last_sound = 0.0
        self._loud_frames = 0
        # what the next frames overlap with: the last samples, and the powers of the last two frames [2, bands]
        self._tail = np.zeros(WINDOW - FRAME, np.float32)
        self._before: np.ndarray | None = None

    @property
    def range(self) -> float:
        """dB between the room and the loudest of late, in the band where there are most."""
        if not self._peaks[0]:
            return 0.0
        return max(peaks[0][1] - floor for peaks, floor in zip(self._peaks, self._levels, strict=True))

    @property
    def _levels(self) -> list[float]:
        """dB of the room, in each band."""
        return [max(floor[0][1], LOWEST_FLOOR) if floor else LOWEST_FLOOR for floor in self._floors]

    def push(self, audio: np.ndarray) -> None:
        """audio: float32 [n] at 16 kHz; n is a multiple of 160."""
        if not len(audio):
            return
        samples = np.concatenate([self._tail, audio])
        self._tail = samples[-len(self._tail) :].copy()
        frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::FRAME]
        power = np.square(np.abs(np.fft.rfft(frames * _HANN, axis=1))) @ _BAND_WEIGHTS
        # smoothed over three frames: the level of a room is not that of its quietest instant
        before = self._before if self._before is not None else np.repeat(power[:1], 2, axis=0)
        padded = np.concatenate([before, power])
        self._before = padded[-2:].copy()
        levels = 10 * np.log10((padded[2:] + padded[1:-1] + padded[:-2]) / 3 + 1e-12)
        self._clock += len(power) * FRAME_SECONDS
        for band, floors, peaks in zip(levels.T, self._floors, self._peaks, strict=True):
            live = band[band > MUTED]
            if len(live):
                _track(floors, self._clock, float(live.min()), FLOOR_SECONDS, lowest=True)
            _track(peaks, self._clock, float(band.max()), PEAK_SECONDS, lowest=False)
        above = min(max(LEAST_ABOVE, SHARE_ABOVE * self.range), MOST_ABOVE)
        for loud in (levels > np.array(self._levels) + above).any(axis=1).tolist():
            self._frame(loud)

    def _frame(self, loud: bool) -> None:
        self.time += FRAME_SECONDS
        if not loud:
            self._loud_frames = 0
            quiet = self.time - self._last_sound
            if self.silent_since is None and quiet >= SHORTEST_SILENCE * FRAME_SECONDS - 1e-6:
                self.silent_since = self._last_sound
            return
        self._loud_frames += 1
        if self._loud_frames >= SHORTEST_SOUND:
            if self.silent_since is not None:
                self.pauses.append((self.silent_since, self.time - SHORTEST_SOUND * FRAME_SECONDS))
                self.silent_since = None
            self._last_sound = self.time


# a monotonic queue of (time, value)
_Extremes = deque[tuple[float, float]]


def _track(extremes: _Extremes, now: float, value: float, window: float, lowest: bool) -> None:
    """Keep the extreme of the last `window` seconds at the front."""
    while extremes and (extremes[-1][1] >= value if lowest else extremes[-1][1] <= value):
        extremes.pop()
    extremes.append((now, value))
    while extremes[0][0] <= now - window:
        extremes.popleft()


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a turn after one embedding. All times are seconds; None: did not happen.

    proposed: when the silence began. retracted: when the sound went on. confirmed: up to when silence lasted.
    """

    proposed: float | None = None
    retracted: float | None = None
    confirmed: float | None = None


class Endpointer:
    """Follows one stream, chunk by chunk. Times are seconds from the first chunk after the last `restart`."""

    def __init__(self, silence: float | None, chunk_seconds: float, lookahead: int, delay: int) -> None:
        """silence: seconds without sound and without a word that end a turn, None for never.

        lookahead, delay: of the model and the stream, in chunks: how far the text is behind the sound.
        """
        self.silence = silence
        self._chunk_seconds, self._lookahead, self._delay = chunk_seconds, lookahead, delay
        self._sound = SoundActivity()
        self.restart()

    def restart(self) -> None:
        """The stream begins anew, from its first chunk."""
        self._sound.restart()
        # chunks whose embedding has not been decoded yet
        self._waiting: deque[np.ndarray] = deque()
        self._chunks = 0
        self._start_turn()

    def _start_turn(self) -> None:
        # chunk of the last word, None before the first
        self._last_word: int | None = None
        self._chunks_without_word = 0
        self._proposed: float | None = None

    @property
    def in_turn(self) -> bool:
        """Has there been a word since the last end?"""
        return self._last_word is not None

    def receive(self, audio: np.ndarray) -> None:
        """Audio of the next chunks, float32 [n, S]; kept until their embeddings are decoded."""
        # copies: a view would keep all of the batch's audio alive
        self._waiting.extend(chunk.copy() for chunk in audio)

    def advance(self, index: int) -> Decision:
        """Embedding `index` has been decoded: its audio and that of the look-ahead may be looked at."""
        while self._waiting and self._chunks <= index + self._lookahead:
            self._chunks += 1
            self._sound.push(self._waiting.popleft())
        if self._proposed is None or self._sound.silent_since is not None:
            return Decision()
        start, end = self._sound.pauses[-1]
        if self.silence is not None and self._is_end(start, end, self.silence):
            # long enough to be an end, which is confirmed when the text has caught up with it
            return Decision()
        self._proposed = None
        return Decision(retracted=end)

    def ends_before(self, chunk: int) -> float | None:
        """A word begins in `chunk` or before: did the turn end before it? If so, up to when silence lasted."""
        if self.silence is None or not self.in_turn or not self._can_tell:
            return None
        for start, end in self._sound.pauses:
            is_over = (chunk + 0.5) * self._chunk_seconds >= end
            if is_over and self._is_end(start, end, self.silence):
                return self._end(self._silent_from(start) + self.silence)
        return None

    def word(self, chunk: int) -> None:
        """Something that is spoken, and ends in `chunk`, has been written."""
        self._last_word = chunk

    def after(self, index: int, spoke: bool, may_end: bool = True) -> Decision:
        """All of the text of embedding `index` has been written. spoke: there was a word among it.

        may_end: False where what follows is not the speaker's silence.
        """
        self._chunks_without_word = 0 if spoke else self._chunks_without_word + 1
        if not self.in_turn or not may_end:
            return Decision()
        if self.silence is not None and not spoke:
            end = self._confirmed((index - self._delay + 1) * self._chunk_seconds, self.silence)
            if end is not None:
                return Decision(confirmed=end)
        return self._propose()

    def _confirmed(self, text_until: float, silence: float) -> float | None:
        sound = self._sound
        without_word = self._chunks_without_word * self._chunk_seconds
        if not self._can_tell:
            return self._end(text_until) if without_word >= silence - 1e-6 else None
        pauses = list(sound.pauses)
        if sound.silent_since is not None:
            pauses.append((sound.silent_since, sound.time))
        for start, end in pauses:
            if text_until >= start + TEXT_MARGIN - 1e-6 and self._is_end(start, end, silence):
                return self._end(self._silent_from(start) + silence)
        if without_word >= silence + NOISY_SECONDS:
            return self._end(text_until)
        return None

    def _end(self, time: float) -> float:
        self._start_turn()
        return time

    def _silent_from(self, start: float) -> float:
        """Silence of a pause in sound and text: not before the chunk that the last word ends in."""
        assert self._last_word is not None
        return max(start, self._last_word * self._chunk_seconds)

    def _is_end(self, start: float, end: float, silence: float) -> bool:
        """Is a pause of the sound, from `start` to `end`, long enough?"""
        return end - self._silent_from(start) >= silence + FAINT_SECONDS - 1e-6

    def _propose(self) -> Decision:
        since = self._sound.silent_since
        if self._proposed is not None or since is None or not self._can_tell:
            return Decision()
        enough = min(PROPOSE_SECONDS, self.silence or math.inf)
        if self._sound.time - self._silent_from(since) < enough - 1e-6:
            return Decision()
        self._proposed = since
        return Decision(proposed=since)

    def onset(self, before: float) -> float | None:
        """When the sound began that there was at `before`; None where the sound does not tell."""
        ends = [end for start, end in self._sound.pauses if end <= before and end - start >= PROPOSE_SECONDS]
        return ends[-1] if ends and self._can_tell else None

    @property
    def _can_tell(self) -> bool:
        """Does the sound say anything? Not without audio, nor where it is the same all the time."""
        return self._sound.range >= LEAST_RANGE
