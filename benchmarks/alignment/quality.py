"""How far an aligner's word times are from a reference's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TimedWord = tuple[str, float, float]
# seconds of a chunk of the default model: a piece is placed by the chunk that its end lies in
CHUNK = 0.24

LENGTHS = ((1, 2), (3, 4), (5, 7), (8, 99))
POSITIONS = ("first word", "first third", "middle", "last third", "last word")


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """Found minus reference, in seconds, for each word [N]; positive is late."""

    start: np.ndarray
    end: np.ndarray
    # letters of the word
    letters: np.ndarray
    # index into POSITIONS
    position: np.ndarray
    # when the reference says that the word begins, from the start of the utterance
    at: np.ndarray
    # chunk of the found end minus chunk of the reference's end
    chunks: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def where(self, mask: np.ndarray) -> Errors:
        return Errors(**{name: getattr(self, name)[mask] for name in self.__slots__})


def compare(reference: Sequence[Sequence[TimedWord]], found: Sequence[Sequence[TimedWord]]) -> Errors:
    """Errors of all words of some utterances. Raises ValueError where the words of an utterance differ."""
    rows = []
    for truth, guess in zip(reference, found, strict=True):
        if [w.lower() for w, _, _ in truth] != [w.lower() for w, _, _ in guess]:
            raise ValueError(f"other words: {[w for w, _, _ in truth]} and {[w for w, _, _ in guess]}")
        for i, ((word, start, end), (_, start2, end2)) in enumerate(zip(truth, guess, strict=True)):
            letters = sum(c.isalnum() for c in word)
            rows.append(
                (
                    start2 - start,
                    end2 - end,
                    letters,
                    _position(i, len(truth)),
                    start,
                    _chunk(end2) - _chunk(end),
                )
            )
    columns = np.array(rows, dtype=float).reshape(-1, 6).T
    return Errors(
        start=columns[0],
        end=columns[1],
        letters=columns[2].astype(int),
        position=columns[3].astype(int),
        at=columns[4],
        chunks=columns[5].astype(int),
    )


def _chunk(seconds: float) -> int:
    # the chunk that the last sample lies in; times are multiples of a sample at best
    return int(np.ceil(round(seconds / CHUNK, 6))) - 1


def _position(index: int, count: int) -> int:
    if index == 0:
        return 0
    if index == count - 1:
        return 4
    return 1 + min(2, 3 * (index - 1) // max(count - 2, 1))


def figures(errors: np.ndarray) -> dict[str, float]:
    """Of errors in seconds [N], in ms: median and mean absolute error, mean and median bias (late is
    positive); in percent: the shares beyond 100 and 200 ms."""
    if not len(errors):
        return dict.fromkeys(
            ("median_abs", "mean_abs", "bias", "median_bias", "over_100", "over_200"), float("nan")
        )
    size = np.abs(errors)
    return {
        "median_abs": float(np.median(size)) * 1000,
        "mean_abs": float(size.mean()) * 1000,
        "bias": float(errors.mean()) * 1000,
        "median_bias": float(np.median(errors)) * 1000,
        "over_100": float((size > 0.1).mean()) * 100,
        "over_200": float((size > 0.2).mean()) * 100,
    }


def groups(errors: Errors) -> dict[str, Errors]:
    """The errors by word length and by position in the utterance."""
    parts = {}
    for low, high in LENGTHS:
        name = f"{low} letters or more" if high == 99 else f"{low} to {high} letters"
        parts[name] = errors.where((errors.letters >= low) & (errors.letters <= high))
    for index, name in enumerate(POSITIONS):
        parts[name] = errors.where(errors.position == index)
    return parts


_HEADER = (
    "| {first} | words | start: median | mean | bias | > 100 ms | > 200 ms "
    "| end: median | mean | bias | > 100 ms | > 200 ms |"
)


def table(rows: dict[str, Errors], first: str = "") -> str:
    """A markdown table of starts and ends: absolute errors (median, mean), bias (ms), shares (percent)."""
    lines = [_HEADER.format(first=first), "| --- |" + " ---: |" * 11]
    for name, errors in rows.items():
        cells = [name, f"{len(errors):,}"]
        for side in (errors.start, errors.end):
            f = figures(side)
            cells += [f"{f['median_abs']:.0f}", f"{f['mean_abs']:.0f}", f"{f['bias']:+.0f}"]
            cells += [f"{f['over_100']:.1f}", f"{f['over_200']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chunk_table(rows: dict[str, Errors], first: str = "") -> str:
    """A markdown table: in which chunk of 240 ms word ends lie, compared with the reference, in percent."""
    lines = [f"| {first} | two or more early | one early | same chunk | one late | two or more late |"]
    lines.append("| --- |" + " ---: |" * 5)
    for name, errors in rows.items():
        c = errors.chunks
        shares = [(c <= -2).mean(), (c == -1).mean(), (c == 0).mean(), (c == 1).mean(), (c >= 2).mean()]
        lines.append(f"| {name} | " + " | ".join(f"{100 * s:.1f}" for s in shares) + " |")
    return "\n".join(lines)
