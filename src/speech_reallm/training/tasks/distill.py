"""Adapting an offline encoder to the streaming mask, without labels.

The student is the same encoder under the mask; it learns to give the frames that the offline encoder gives on the same
audio, without noise and with silence after it: squared error, normalised by the variance of the teacher's frames.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from ...audio import SAMPLE_RATE
from ..config import ModelConfig, RunConfig, to_dict
from ..data.collate import pad_audio, pad_rows, pad_to_chunks, present
from ..data.sources.audio import AudioSource
from ..data.sources.base import Example
from ..device import autocast, device_of, moved, own_device
from ..distributed import rank_and_world_size
from ..model.encoders import build_encoder
from ..model.offline_teacher import offline_frames
from ..objectives.base import ModelOutput
from ..objectives.frame_distillation import FrameDistillation
from ..weights import init_from
from .base import Content, Task, started, total_loss


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig(RunConfig):
    """A run of `task: distill`: an offline encoder learns to stream. See RunConfig for what all runs share.

    model: whose encoder is trained.
    distillation_teacher: folder with the weights of the offline encoder, from which the student begins unless `init`
        says otherwise.
    teacher_padding_seconds: silence after every example of the teacher: the frames of an offline encoder depend on
        how near the end is, which no streaming one can tell.
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "teacher": "distillation_teacher",
        "teacher_tail": "teacher_padding_seconds",
    }

    model: ModelConfig | None = None
    distillation_teacher: str | None = None
    teacher_padding_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.need(model=self.model, distillation_teacher=self.distillation_teacher)


@dataclass(kw_only=True, slots=True)
class FrameBatch:
    """audio and clean [B, N] float32; lengths [B] samples; delay: label delay of all, in chunks.

    num_targets: frames that count, those within the utterances.
    """

    audio: Tensor
    clean: Tensor
    lengths: Tensor
    frame_lengths: Tensor
    delay: int
    num_targets: int


class _EncoderOnly(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.encoder = build_encoder(config.encoder, config.chunk_ms)


class DistillTask(Task):
    """task: distill"""

    config: DistillConfig
    model: _EncoderOnly
    source: AudioSource

    def __init__(self, config: DistillConfig):
        super().__init__()
        assert config.model is not None and config.distillation_teacher is not None
        self.config, self.delays = config, config.model.delays
        self.model = _EncoderOnly(config.model)
        teacher = build_encoder(config.model.encoder.offline(), config.model.chunk_ms)
        init_from(teacher, config.distillation_teacher, "encoder.")
        # kept out of the module tree: it is neither trained nor saved
        self._teacher = (teacher.to(own_device()).eval().requires_grad_(False),)
        started(self.model, config.init or (config.distillation_teacher,))
        self.objectives = [FrameDistillation()]
        self.source = AudioSource(config.data, config.seed, *rank_and_world_size())
        self.dev: list[FrameBatch] = self._load_dev() if config.data.dev else []

    def _load_dev(self) -> list[FrameBatch]:
        # joined: the frames that an offline encoder makes of an utterance depend on its length, which no stream can
        # tell
        source = AudioSource(self.config.data.of_dev(concatenate_prob=1.0), 0)
        batches: list[FrameBatch] = []
        rng = np.random.default_rng(0)
        for number in range(source.steps(0)):
            if sum(len(b.lengths) for b in batches) >= self.config.data.dev_utterances:
                break
            batches.append(self.collate(source.load(0, number, rng), rng))
        return batches

    def collate(self, examples: list[Example], rng: np.random.Generator) -> FrameBatch:
        audio, lengths = pad_audio(present(e.audio for e in examples))
        encoder = self.model.encoder
        frame_lengths = (lengths + encoder.hop - 1) // encoder.hop
        return FrameBatch(
            audio=audio,
            clean=pad_rows(present(e.clean for e in examples)),
            lengths=lengths,
            frame_lengths=frame_lengths,
            delay=int(rng.choice(self.delays)),
            num_targets=int(frame_lengths.sum()),
        )

    def forward(self, batch: FrameBatch) -> tuple[Tensor, dict[str, Tensor]]:
        encoder = self.model.encoder
        padding = round(self.config.teacher_padding_seconds * SAMPLE_RATE)
        offset = encoder.frame_offset(batch.delay)
        audio = pad_to_chunks(batch.audio, encoder.chunk_samples, encoder.lookahead_chunks + offset)
        frames = encoder(audio, delay=batch.delay).float()[:, offset * encoder.frames_per_chunk :]
        target = offline_frames(self._teacher[0], batch.clean, batch.lengths, padding)
        output = ModelOutput(frames=frames, target_frames=target, frame_lengths=batch.frame_lengths)
        return total_loss(self.objectives, output, batch)[0], {}

    def evaluate(self) -> dict[str, float]:
        """`score`: the mean of the losses at each delay that makes a difference to the encoder."""
        delays = {self.model.encoder.frame_offset(d): d for d in sorted(self.delays, reverse=True)}
        where, losses = device_of(self.model), {}
        for delay in sorted(delays.values()):
            total = count = 0.0
            for batch in self.dev:
                with autocast(where, self.config.optim.bf16):
                    total += float(self(moved(dataclasses.replace(batch, delay=delay), where))[0])
                count += batch.num_targets
            losses[f"loss_{delay}"] = total / max(count, 1)
        score = sum(losses.values()) / len(losses)
        return {"score": score, "loss": score, **losses}

    def artifacts(self) -> dict[str, Content]:
        return {"model.safetensors": dict(self.model.state_dict()), "model.json": to_dict(self.config.model)}
