"""The utterances that training is watched on."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..config import DataConfig
from ..data.batches import AudioBatch, AudioBatches
from ..evaluate.wer import align, make_normalizer, total


class DevSet:
    """The first `dev_utterances` of a random, fixed order of the dev manifest, in batches by length."""

    def __init__(self, data: DataConfig, batch_seconds: float = 120.0):
        plain = data.watched(max_seconds=40.0, batch_seconds=batch_seconds)
        source = AudioBatches(plain, 0)
        self.loaded: list[AudioBatch] = []
        taken = 0
        for batch in source.plan(0):
            if taken >= data.dev_utterances:
                break
            self.loaded.append(source.load(batch[: data.dev_utterances - taken], 0))
            taken += len(self.loaded[-1].cuts)

    @property
    def texts(self) -> list[str]:
        return [cuts[0].supervisions[0].text for batch in self.loaded for cuts in batch.cuts]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(audio [B, N], lengths [B] samples)"""
        for batch in self.loaded:
            yield batch.audio, batch.lengths


def error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Word error rate in percent, LibriSpeech normalisation."""
    normalize = make_normalizer("librispeech")
    pairs = zip(references, hypotheses, strict=True)
    counts = total(align(normalize(r).split(), normalize(h).split()).counts for r, h in pairs)
    return counts.wer or 0.0
