"""Adapting an offline encoder to the streaming mask, without labels.

The student is the same encoder under the mask; it learns to give the frames that the offline encoder gives on the
same audio, without noise and with silence after it: squared error, normalised by the variance of the teacher's frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import UserError
from ..checkpoint import init_from
from ..config import SAMPLE_RATE, ModelConfig, TrainConfig, to_dict
from ..data.batches import AudioBatch, AudioBatches, pad_to_chunks
from ..device import autocast, device_of, moved, own_device
from ..loop import world
from ..model.encoders import build_encoder
from ..model.offline_teacher import offline_frames


def frame_error(frames: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Sum over the frames inside of their squared error, in parts of the variance of the target's. [B, T, D], [B, T]

    The variance counts as a tenth of the frames' power at least: those of silence are all alike.
    """
    error = (frames - target).square().mean(-1)
    known = target[inside]
    scale = torch.maximum(known.var(0).mean(), 0.1 * known.square().mean()).clamp(min=1e-6)
    return (error * inside).sum() / scale


class _EncoderOnly(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.encoder = build_encoder(config.encoder, config.chunk_ms)


class DistillTask(nn.Module):
    """task: distill"""

    def __init__(self, config: TrainConfig):
        super().__init__()
        if config.model is None or config.teacher is None:
            raise UserError("a distill run needs `model` and `teacher`")
        self.config = config
        self.model = _EncoderOnly(config.model)
        offline = config.model.encoder.offline()
        teacher = build_encoder(offline, config.model.chunk_ms)
        init_from(teacher, config.teacher, "encoder.")
        # kept out of the module tree: it is neither trained nor saved
        self._teacher = [teacher.to(own_device()).eval().requires_grad_(False)]
        for folder in config.init or (config.teacher,):
            init_from(self.model, folder)
        self.model.to(own_device())
        self.data = AudioBatches(config.data, config.seed, *world())
        self.dev: list[AudioBatch] = []
        if config.data.dev:
            # joined: what an offline encoder makes of an utterance is coloured by its length, which no stream knows
            batches = AudioBatches(config.data.watched(concatenate_prob=1.0), 0)
            taken = 0
            for number, batch in enumerate(batches.plan(0)):
                if taken >= config.data.dev_utterances:
                    break
                self.dev.append(batches.load(batch, 0, number))
                taken += len(batch)

    def steps_in_epoch(self, epoch: int) -> int:
        return len(self.data.plan(epoch))

    def epoch(self, epoch: int, start: int) -> Iterator[AudioBatch | None]:
        """Batches, each at a delay that all processes agree on."""
        for number, batch in enumerate(self.data.epoch(epoch, start), start):
            delay = np.random.default_rng((self.config.seed, epoch, number, 5)).choice(
                self.config.model.delays
            )
            yield batch and dataclasses.replace(batch, delay=int(delay))

    def count(self, batch: AudioBatch) -> int:
        """Frames that count: those within the utterances."""
        return int(self._frames(batch).sum())

    def _frames(self, batch: AudioBatch) -> Tensor:
        hop = self.model.encoder.chunk_samples // self.model.encoder.frames_per_chunk
        return (batch.lengths + hop - 1) // hop

    def forward(self, batch: AudioBatch) -> tuple[Tensor, dict[str, float]]:
        encoder = self.model.encoder
        tail = round(self.config.teacher_tail * SAMPLE_RATE)
        shift = encoder.shift(batch.delay)
        heard = pad_to_chunks(batch.audio, encoder.chunk_samples, encoder.lookahead_chunks + shift)
        frames = encoder(heard, delay=batch.delay).float()[:, shift * encoder.frames_per_chunk :]
        target = offline_frames(self._teacher[0], batch.clean, batch.lengths, tail)[:, : frames.shape[1]]
        inside = torch.arange(target.shape[1], device=target.device)[None] < self._frames(batch)[:, None]
        return frame_error(frames, target, inside), {}

    def evaluate(self) -> dict[str, float]:
        """`score`: the mean of the losses at each delay that makes a difference to the encoder."""
        delays = {self.model.encoder.shift(d): d for d in sorted(self.config.model.delays, reverse=True)}
        where, losses = device_of(self.model), {}
        for delay in sorted(delays.values()):
            total = count = 0.0
            for batch in self.dev:
                with autocast(where, self.config.optim.bf16):
                    total += float(self(moved(dataclasses.replace(batch, delay=delay), where))[0])
                count += self.count(batch)
            losses[f"loss_{delay}"] = total / max(count, 1)
        score = sum(losses.values()) / len(losses)
        return {"score": score, "loss": score, **losses}

    def files(self) -> dict[str, Any]:
        return {"model.safetensors": dict(self.model.state_dict()), "model.json": to_dict(self.config.model)}
