"""The error rate of a streaming recogniser on the dev set, by greedy decoding in torch."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from ..tokenizer import Tokenizer
from .config import DataConfig
from .dev_set import DevSet, error_rate
from .device import device_of
from .model.encode import encode_batch
from .model.greedy import greedy
from .model.reallm import ReaLLM


class StreamingDev:
    """The dev set of a ReaLLM model, decoded at its default label delay.

    frozen: the encoder is not trained, so its frames are computed once and kept.
    """

    def __init__(self, data: DataConfig, tokenizer: Tokenizer, *, frozen: bool, bf16: bool):
        self.dev = DevSet(data)
        self.tokenizer, self.frozen, self.bf16 = tokenizer, frozen, bf16
        self._frames: list[Tensor] = []

    def error_rate(self, model: ReaLLM) -> dict[str, float]:
        """See dev_set.error_rate."""
        config, where = model.config, device_of(model)
        delay, hypotheses = config.default_delay, []
        if not self._frames or not self.frozen:
            flush = max(config.delays)
            self._frames = [
                encode_batch(model.encoder, audio, lengths, flush, self.bf16, delay)
                for audio, lengths in self.dev.batches()
            ]
        # what decoding makes for itself, caches and counters, has to be where the model is
        with contextlib.nullcontext() if where.type == "cpu" else where:
            for frames, (_, lengths) in zip(self._frames, self.dev.batches(), strict=True):
                chunks = (lengths + config.chunk_samples - 1) // config.chunk_samples + delay
                pieces = greedy(model, frames, chunks.to(where), torch.full((len(lengths),), delay))
                hypotheses += [self.tokenizer.decode(ids) for ids in pieces]
        return error_rate(self.dev.texts, hypotheses)
