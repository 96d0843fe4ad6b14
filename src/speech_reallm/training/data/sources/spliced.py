"""Spliced speech: words of aligned recordings, joined in the order of new text.

A decoder that is trained on few hours learns their sentences by heart. Here it is trained on other sentences: for each
word of a text a stretch of encoder frames in which that word was spoken, by the same speaker where there is one, or
else the stretches of its pieces. (Aligned data augmentation, Lam et al., Interspeech 2021, on cached encoder frames.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....errors import UserError
from ....text import normalize_for_training
from ....tokenizer import SPACE, Tokenizer
from ...align.spans import spread
from ..frame_cache import Entry, FrameCache
from ..labels import Labels
from .base import Example, Source
from .cached_frames import CachedFrames

PAUSE_PROB = 0.1


@dataclass(frozen=True, slots=True)
class SpeechUnit:
    """Frames start ... end - 1 of an entry, the pieces spoken there, the frame (from start) in which each ends."""

    entry: int
    start: int
    end: int
    pieces: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


class Splicer:
    """Makes utterances of new text out of a cache of aligned speech."""

    def __init__(self, cache: FrameCache, tokenizer: Tokenizer, texts: Sequence[str], frame_seconds: float):
        self.cache, self.tokenizer, self.frame_seconds = cache, tokenizer, frame_seconds
        self.words = _words(texts)
        # by word or piece: for every speaker, where it was spoken
        self.units: dict[str, dict[str, list[SpeechUnit]]] = {}
        self.pauses: list[SpeechUnit] = []
        self.weights: dict[str, float] = {}
        for number, entry in enumerate(cache.entries):
            self._index(number, entry)
        self.speakers = list(self.weights)
        root = np.sqrt(np.asarray([self.weights[s] for s in self.speakers]))
        self.chances = root / root.sum()

    def _index(self, number: int, entry: Entry) -> None:
        supervision = entry.cut.supervisions[0]
        speaker = str(supervision.speaker)
        peaks = (supervision.alignment or {}).get("piece") or []
        wide = spread(peaks, entry.cut.duration)
        group: list[int] = []
        last_end = 0
        for i in range(len(peaks) + 1):
            if i == len(peaks) or (peaks[i].symbol.startswith(SPACE) and group):
                if group:
                    word = "".join(peaks[j].symbol for j in group).removeprefix(SPACE)
                    unit = self._unit(number, entry, peaks, wide, group)
                    if unit.start - last_end >= 5:
                        self.pauses.append(SpeechUnit(number, last_end, unit.start))
                    last_end = unit.end
                    self.units.setdefault(word, {}).setdefault(speaker, []).append(unit)
                    self.weights[speaker] = self.weights.get(speaker, 0.0) + 1
                    for j in group:
                        piece = self._unit(number, entry, peaks, wide, [j])
                        key = SPACE + peaks[j].symbol  # told from a word of the same letters
                        self.units.setdefault(key, {}).setdefault(speaker, []).append(piece)
                group = []
            if i < len(peaks):
                group.append(i)

    def _unit(self, number: int, entry: Entry, peaks: list, wide: list, group: list[int]) -> SpeechUnit:
        def frame(seconds: float) -> int:
            return round(seconds / self.frame_seconds)

        first, last = wide[group[0]], wide[group[-1]]
        start = min(frame(first.start), entry.speech_frames - 1)
        end = min(max(frame(last.start + last.duration), start + 1), entry.speech_frames)
        ends = (frame(peaks[j].start + peaks[j].duration) - start for j in group)
        pieces = tuple(self.tokenizer.id(peaks[j].symbol) for j in group)
        return SpeechUnit(number, start, end, pieces, tuple(min(max(e, 1), end - start) for e in ends))

    def _find(self, key: str, speaker: str, rng: np.random.Generator) -> SpeechUnit | None:
        by_speaker = self.units.get(key)
        if not by_speaker:
            return None
        found = by_speaker.get(speaker)
        if not found:
            others = list(by_speaker)
            found = by_speaker[others[rng.integers(len(others))]]
        return found[rng.integers(len(found))]

    def _find_word(self, word: str, speaker: str, rng: np.random.Generator) -> list[SpeechUnit]:
        """Units in which the word is spoken; none where one of its pieces never is."""
        whole = self._find(word, speaker, rng)
        if whole is not None:
            return [whole]
        parts = [self._find(SPACE + p, speaker, rng) for p in self.tokenizer.encode_pieces(word)]
        return [] if any(p is None for p in parts) else [p for p in parts if p is not None]

    def utterance(
        self, seconds: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, list[int], list[float]]:
        """Frames float16 [T, D] of about `seconds`, the pieces spoken in them and the times (s) at which they end."""
        speaker = self.speakers[rng.choice(len(self.speakers), p=self.chances)]
        at = int(rng.integers(len(self.words)))
        chosen: list[SpeechUnit] = []
        if self.pauses and rng.random() < 0.5:
            chosen.append(self.pauses[rng.integers(len(self.pauses))])
        total, wanted = 0, seconds / self.frame_seconds
        while total < wanted:
            spoken = self._find_word(self.words[at % len(self.words)], speaker, rng)
            at += 1
            if not spoken:
                if total:  # the sentence must not have a hole
                    break
                continue
            chosen += spoken
            total += sum(s.end - s.start for s in spoken)
            if self.pauses and rng.random() < PAUSE_PROB:
                chosen.append(self.pauses[rng.integers(len(self.pauses))])
        frames: list[np.ndarray] = []
        pieces: list[int] = []
        ends: list[float] = []
        offset = 0
        for unit in chosen:
            stretch = self.cache.read(self.cache.entries[unit.entry])[unit.start : unit.end]
            frames.append(stretch)
            pieces += unit.pieces
            ends += [(offset + e) * self.frame_seconds for e in unit.ends]
            offset += len(stretch)
        return np.concatenate(frames), pieces, ends

    def silence(self, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Frames [frames, D] of the silence that follows every cached utterance, repeated as need be."""
        entry = self.cache.entries[rng.integers(len(self.cache.entries))]
        flush = self.cache.read(entry)[entry.speech_frames :]
        return np.resize(flush, (frames, flush.shape[1]))


class SplicedSource(Source):
    """Spliced utterances, about as long as those of another source's batches."""

    def __init__(self, splicer: Splicer, like: CachedFrames, flush_chunks: int):
        """like: the source whose batches are imitated. flush_chunks: chunks of silence after each utterance."""
        self.splicer, self.like, self.flush_chunks, self.seed = splicer, like, flush_chunks, like.seed

    def steps(self, epoch: int) -> int:
        return self.like.steps(epoch)

    def load(self, epoch: int, number: int, rng: np.random.Generator) -> list[Example]:
        entries, per = self.like.cache.entries, self.like.cache.frames_per_chunk
        seconds = [sum(entries[i].seconds for i in indices) for indices in self.like.plan(epoch)[number]]
        examples = []
        for wanted in seconds[self.like.rank :: self.like.world_size]:
            frames, pieces, ends = self.splicer.utterance(wanted, rng)
            chunks = -(-len(frames) // per)
            silence = self.splicer.silence((chunks + self.flush_chunks) * per - len(frames), rng)
            examples.append(
                Example(
                    frames=np.concatenate((frames, silence)),
                    labels=Labels(pieces=pieces, ends=ends),
                    chunks=chunks,
                )
            )
        return examples


def _words(texts: Sequence[str]) -> list[str]:
    """All words of the text files, normalised, in order."""
    words: list[str] = []
    for name in texts:
        try:
            lines = Path(name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as err:
            raise UserError(f"cannot read {name}: {err.strerror}") from None
        for line in lines:
            words += normalize_for_training(line).split()
    if not words:
        raise UserError("splicing needs text: name files as `text`")
    return words
