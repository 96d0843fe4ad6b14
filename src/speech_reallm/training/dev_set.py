"""The utterances that training is watched on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from ..evaluate.bootstrap import interval
from ..evaluate.wer import edit_alignment, make_normalizer
from .config import DataConfig
from .data.collate import pad_audio, present
from .data.planning import bucket
from .data.sources.audio import AudioSource

# of a hundred examples, how many are several utterances joined, and how long these are at most, in seconds
JOINED, LONGEST = 20, 40.0


class DevSet:
    """`dev_utterances` examples of the dev manifests, in batches by length.

    They are drawn at random, the same for the same manifests, and not by length: a few buckets of like utterances say
    little about the others. A fifth of them are several utterances joined, of whatever speakers.
    """

    def __init__(self, data: DataConfig, batch_seconds: float = 120.0):
        source = AudioSource(data.of_dev(max_seconds=LONGEST, batch_seconds=batch_seconds), 0)
        rng = np.random.default_rng(0)
        order = [int(i) for i in rng.permutation(len(source.cuts))]
        count = min(data.dev_utterances, len(order))
        examples: list[tuple[int, ...]] = [(i,) for i in order[: count - count * JOINED // 100]]
        while len(examples) < count:
            joined: list[int] = []
            seconds = 0.0
            for i in rng.choice(len(order), min(5, len(order)), replace=False).tolist():
                if joined and seconds + source.cuts[i].duration > LONGEST:
                    break
                joined.append(i)
                seconds += source.cuts[i].duration
            examples.append(tuple(joined))
        durations = [sum(source.cuts[i].duration for i in e) for e in examples]
        batches = bucket(durations, batch_seconds, 0, 0)
        self.texts: list[str] = []
        self._batches: list[tuple[Tensor, Tensor]] = []
        for number, members in enumerate(batches):
            loaded = [source.example(examples[i], 0, number, row) for row, i in enumerate(members)]
            self.texts += [example.text for example in loaded]
            self._batches.append(pad_audio(present(example.audio for example in loaded)))

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(audio [B, N], lengths [B] samples)"""
        yield from self._batches


def error_rate(references: list[str], hypotheses: list[str]) -> dict[str, float]:
    """`wer`: word error rate in percent, LibriSpeech normalisation; `wer_low`, `wer_high`: its 95 % interval."""
    normalize = make_normalizer("librispeech")
    pairs = zip(references, hypotheses, strict=True)
    counts = [edit_alignment(normalize(r).split(), normalize(h).split()).counts for r, h in pairs]
    errors, words = [c.errors for c in counts], [c.words for c in counts]
    if not sum(words):
        return {"wer": 0.0, "wer_low": 0.0, "wer_high": 0.0}
    low, high = interval(errors, words)
    return {"wer": 100 * sum(errors) / sum(words), "wer_low": low, "wer_high": high}
