"""Words with times -> subtitles that can be read, broken as a captioner would.

The limits are those that broadcasters and streaming services publish for English: two lines of 42 characters,
17 characters a second, five sixths of a second to seven seconds on screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .events import Transcript, Word
from .punctuation import bare

LINE_CHARACTERS = 42
CUE_LINES = 2
# characters that a viewer reads in a second; who speaks faster is shown as long as there is room
READING_SPEED = 17.0
LEAST_SECONDS = 5 / 6
MOST_SECONDS = 7.0
# a silence of so many seconds always ends a cue
PAUSE = 1.0
# two frames without text tell the eye that it has changed
GAP = 0.08
# a shorter gap than this looks like a flicker: the cue stays until the next one comes
FLICKER = 0.5

# a cue or a line should not end in one of these: they belong to what follows
_LEANS_ON = frozenset(
    str.split(
        "a an the this that these those my your his her its our their no every some any of to in on at by for "
        "from with about into over under between through and or but nor so because if when while although than "
        "as is are was were be been am will would can could shall should may might must have has had do does did "
        "not very i you he she it we they who which"
    )
)
# these do, too, and have a dot that ends no sentence
_TITLES = frozenset(("mr", "mrs", "ms", "dr", "messrs", "prof", "st"))
# and may well end before one of these
_OPENS = frozenset(
    str.split("and or but nor so because if when while although that which who where than then")
)


class Cue(NamedTuple):
    """One subtitle: `start` and `end` in seconds of audio, one or two `lines`."""

    start: float
    end: float
    lines: list[str]


def cues_of(transcript: Transcript) -> list[Cue]:
    """Subtitles of a transcript, in order, never two at once; every word is in one of them.

    At most two lines of at most 42 characters (a longer word has a line to itself). A cue never goes on over
    a segment's end or a pause of a second, and stays no longer than seven seconds. It stays long enough to be
    read where the next one leaves room.
    """
    groups: list[list[Word]] = []
    starts = [*(segment.start for segment in transcript.segments), None]
    for segment, after in zip(transcript.segments, starts[1:], strict=True):
        groups += _divide(segment.words, after)
    cues = []
    starts = [*(group[0].start for group in groups), None]
    for group, after in zip(groups, starts[1:], strict=True):
        start, end = _on_screen(group, after)
        cues.append(Cue(start, end, _lines(group)))
    return cues


def _divide(words: Sequence[Word], after: float | None) -> list[list[Word]]:
    """The words of a segment as cues, by least total cost over all ways to divide them.

    after: when the next segment starts, None for the last.
    """
    costs = [0.0] + [float("inf")] * len(words)
    begins = [0] * (len(words) + 1)
    for end in range(1, len(words) + 1):
        following = words[end] if end < len(words) else None
        break_cost = _break_cost(words[end - 1], following) if following else 0.0
        next_start = following.start if following else after
        for begin in range(end - 1, -1, -1):
            group = words[begin:end]
            # what does not fit with these words does not fit with more of them either
            if len(group) > 1 and not _fits(group):
                break
            cost = costs[begin] + break_cost + _cue_cost(group, next_start)
            if cost < costs[end]:
                costs[end], begins[end] = cost, begin
    groups: list[list[Word]] = []
    end = len(words)
    while end:
        groups.append(list(words[begins[end] : end]))
        end = begins[end]
    return groups[::-1]


def _fits(group: Sequence[Word]) -> bool:
    """May these words be one cue? Only the first pause is looked at: the caller adds words in front."""
    return (
        group[1].start - group[0].end < PAUSE
        and group[-1].end - group[0].start <= MOST_SECONDS
        and len(_fill(group)) <= CUE_LINES
    )


def _cue_cost(group: Sequence[Word], after: float | None) -> float:
    """What speaks against a cue: that it is one more, scraps of text, and too little time to read it."""
    start, end = _on_screen(group, after)
    seconds = max(end - start, 1e-3)
    characters = _characters(group)
    cost = 1.0 + max(0.0, 1 - characters / 20)
    cost += 3 * max(0.0, 1 - seconds / LEAST_SECONDS)
    return cost + 3 * min(3.0, max(0.0, characters / seconds / READING_SPEED - 1))


def _break_cost(word: Word, following: Word) -> float:
    """How bad it is to break between two words; less than 0 where it is good."""
    cost = -2 * min(1.0, max(0.0, following.start - word.end) / PAUSE)
    cost -= 0.5 * (bare(following.word) in _OPENS)
    plain, mark = bare(word.word), word.word.rstrip("\"'”’)]")[-1:]
    if plain in _TITLES:
        return cost + 1.5
    # nor does the dot of an initial end a sentence
    if mark in ("?", "!", "…") or (mark == "." and (len(plain) > 1 or plain == "i")):
        return cost - 2
    if mark in (";", ":"):
        return cost - 1
    if mark == ",":
        return cost - 0.5
    return cost + 1.5 * (plain in _LEANS_ON)


def _on_screen(group: Sequence[Word], after: float | None) -> tuple[float, float]:
    """When a cue comes and goes. after: when the next one comes, None if none does."""
    start = group[0].start
    wanted = max(group[-1].end, start + LEAST_SECONDS, start + _characters(group) / READING_SPEED)
    end = min(wanted, start + MOST_SECONDS)
    if after is not None and after - end < FLICKER:
        # without the gap if the time is too short for it
        gap = GAP if after - start > LEAST_SECONDS + GAP else 0.0
        end = min(max(start, after - gap), start + MOST_SECONDS)
    return start, end


def _characters(words: Sequence[Word]) -> int:
    return sum(len(word.word) for word in words) + len(words) - 1


def _fill(words: Sequence[Word]) -> list[int]:
    """Lengths of the lines if each takes as many words as it can."""
    lengths: list[int] = []
    for word in words:
        if lengths and lengths[-1] + 1 + len(word.word) <= LINE_CHARACTERS:
            lengths[-1] += 1 + len(word.word)
        else:
            lengths.append(len(word.word))
    return lengths


def _lines(group: Sequence[Word]) -> list[str]:
    """One line if the words fit on it, else two: about even, broken where the sense allows."""
    if len(_fill(group)) == 1:
        return [" ".join(word.word for word in group)]

    def cost(split: int) -> float:
        first, second = _characters(group[:split]), _characters(group[split:])
        over = sum(
            max(0, _characters(part) - LINE_CHARACTERS)
            for part in (group[:split], group[split:])
            if len(part) > 1
        )
        # the lower line may be the longer one: it hides less of the picture
        uneven = abs(first - second) + (4 if first > second else 0)
        return 1000 * over + uneven + 12 * _break_cost(group[split - 1], group[split])

    split = min(range(1, len(group)), key=cost)
    return [" ".join(word.word for word in part) for part in (group[:split], group[split:])]
