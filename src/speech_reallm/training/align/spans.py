"""From the frames of a CTC path to the times of pieces and words.

A frame t covers the seconds [t, t + 1) * frame_seconds. Times count from the start of the cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from lhotse.supervision import AlignmentItem

from ...tokenizer import SPACE


def piece_items(
    pieces: Sequence[str],
    starts: Sequence[int],
    ends: Sequence[int],
    scores: Sequence[float],
    *,
    frame_seconds: float,
    duration: float,
    offset: float = 0.0,
) -> list[AlignmentItem]:
    """Times of pieces, in order, within [0, duration].

    `starts` and `ends` are frames, ends exclusive; `scores` mean log probabilities. `offset` seconds are
    added to all times, to take out a known bias.
    """
    items = []
    for piece, start, end, score in zip(pieces, starts, ends, scores, strict=True):
        begin = min(max(start * frame_seconds + offset, 0.0), duration)
        finish = min(max(end * frame_seconds + offset, begin), duration)
        items.append(AlignmentItem(piece, round(begin, 4), round(finish - begin, 4), round(score, 4)))
    return items


# Of the blanks between two peaks the earlier piece takes this share, the later one the rest, and neither
# takes more than this many seconds. Fitted on synthetic speech with known times; real speech agrees
# (docs/alignment.md).
_EARLIER_SHARE = 0.35
_MOST = 0.15


def spread(pieces: Sequence[AlignmentItem], duration: float) -> list[AlignmentItem]:
    """From the peaks of a CTC output to the times at which the pieces are spoken.

    A CTC model names a piece in a frame or two in the midst of it and calls the rest blank, so that peaks
    begin about 110 ms late and end about 60 ms early. The blanks between are given back here. `duration`:
    of the audio, in seconds.
    """
    items = list(pieces)
    starts = [p.start for p in items]
    ends = [p.start + p.duration for p in items]
    spread_starts, spread_ends = [], []
    for i in range(len(items)):
        before = starts[i] - ends[i - 1] if i else float("inf")
        after = starts[i + 1] - ends[i] if i + 1 < len(items) else float("inf")
        spread_starts.append(max(starts[i] - min((1 - _EARLIER_SHARE) * before, _MOST), 0.0))
        spread_ends.append(min(ends[i] + min(_EARLIER_SHARE * after, _MOST), duration))
    return [
        AlignmentItem(p.symbol, round(a, 4), round(max(b - a, 0.0), 4), p.score)
        for p, a, b in zip(items, spread_starts, spread_ends, strict=True)
    ]


def word_items(words: Sequence[str], pieces: Sequence[AlignmentItem]) -> list[AlignmentItem]:
    """Times of words: a word starts with a piece that starts with U+2581 and lasts to the end of its last
    piece.

    Its score is the mean of its pieces', weighted by their durations. Raises ValueError when there are not
    as many words in the pieces.
    """
    groups: list[list[AlignmentItem]] = []
    for item in pieces:
        if item.symbol.startswith(SPACE) or not groups:
            groups.append([])
        groups[-1].append(item)
    if len(groups) != len(words):
        raise ValueError(f"the pieces {[p.symbol for p in pieces]} are not the words {list(words)}")
    items = []
    for word, group in zip(words, groups, strict=True):
        first, last = group[0], group[-1]
        # a piece that a shift has pushed out of the audio has no duration, but still a score
        weights = [p.duration + 1e-6 for p in group]
        score = sum(w * (p.score or 0.0) for w, p in zip(weights, group, strict=True)) / sum(weights)
        duration = last.start + last.duration - first.start
        items.append(AlignmentItem(word, first.start, round(duration, 4), round(score, 4)))
    return items
