"""Training a CTC model, the alignment teacher; on cached frames when its encoder is frozen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...text import normalize_for_training
from ..config import CTCConfig, RunConfig, to_dict
from ..data.collate import pad_audio, pad_integers, pad_rows, pad_to_chunks, present
from ..data.frame_cache import FrameCache
from ..data.sources.audio import AudioSource
from ..data.sources.base import BatchSource, Example
from ..data.sources.cached_frames import CachedFrames
from ..data.spec_augment import SpecAugment
from ..dev_set import DevSet, error_rate
from ..device import autocast, device_of
from ..distributed import rank_and_world_size
from ..model.ctc import BLANK, CTCModel
from ..objectives.base import ModelOutput
from ..objectives.ctc import CTCLoss
from .base import Content, Task, load_tokenizer, started, total_loss


@dataclass(frozen=True, kw_only=True, slots=True)
class CTCRunConfig(RunConfig):
    """A run of `task: ctc`: the model that finds when pieces are spoken. See RunConfig for what all runs share.

    ctc: the model. data.tokenizer: of its pieces.
    cache: folder of encoder frames to train on: what is frozen of the encoder never runs in the loop.
    """

    ctc: CTCConfig | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        self.need(ctc=self.ctc, data__tokenizer=self.data.tokenizer)
        if self.cache and self.optim.encoder_lr_scale:
            raise UserError("`cache` needs a frozen encoder: set optim.encoder_lr_scale to 0")


@dataclass(kw_only=True, slots=True)
class CTCBatch:
    """Frames [B, T, D] or audio [B, N]; lengths [B] frames or samples; pieces [B, U] and their numbers [B]."""

    frames: Tensor | None = None
    audio: Tensor | None = None
    lengths: Tensor
    pieces: Tensor
    piece_lengths: Tensor
    num_targets: int


class CTCTask(Task):
    """task: ctc"""

    config: CTCRunConfig
    model: CTCModel

    def __init__(self, config: CTCRunConfig):
        super().__init__()
        assert config.ctc is not None and config.data.tokenizer is not None
        self.config = config
        self.tokenizer = load_tokenizer(config.data.tokenizer, config.ctc.vocab_size, "ctc.vocab_size")
        self.model = CTCModel(config.ctc)
        started(self.model, config.init)
        self.augment = SpecAugment(config.data.augment)
        self.objectives = [CTCLoss(blank_id=BLANK)]
        self.source = self._source(config.ctc.chunk_ms / 1000)
        self.dev = DevSet(config.data) if config.data.dev else None

    def _source(self, chunk_seconds: float) -> BatchSource:
        config, share = self.config, rank_and_world_size()
        if not config.cache:
            return AudioSource(config.data, config.seed, *share)
        cache = FrameCache(config.cache, self.model.encoder.eval(), config.data, 0, config.optim.bf16)
        # frames of a full-context encoder are of whole utterances, which are not joined
        data = dataclasses.replace(config.data, concatenate_prob=0.0)
        return CachedFrames(cache, data, config.seed, *share, chunk_seconds=chunk_seconds, every_speed=True)

    def collate(self, examples: list[Example], rng: np.random.Generator) -> CTCBatch:
        pieces = [
            np.asarray(self.tokenizer.encode(normalize_for_training(e.text)), np.int64) for e in examples
        ]
        frames = audio = None
        if examples[0].frames is not None:
            frames = pad_rows(present(e.frames for e in examples))
            lengths = torch.tensor([e.speech_frames for e in examples])
        else:
            audio, lengths = pad_audio(present(e.audio for e in examples))
        return CTCBatch(
            frames=frames,
            audio=audio,
            lengths=lengths,
            pieces=pad_integers(pieces, 0),
            piece_lengths=torch.tensor([len(p) for p in pieces]),
            num_targets=sum(map(len, pieces)),
        )

    def forward(self, batch: CTCBatch) -> tuple[Tensor, dict[str, Tensor]]:
        frames, lengths = batch.frames, batch.lengths
        augment = self.augment if self.augment and self.training else None
        if frames is None:
            assert batch.audio is not None
            encoder = self.model.encoder
            frames = encoder(pad_to_chunks(batch.audio, encoder.chunk_samples, 0), lengths, augment)
            lengths = self.model.frame_lengths(lengths)
        elif augment:
            frames = augment(frames)
        output = ModelOutput(logits=self.model.classify(frames, lengths), lengths=lengths)
        return total_loss(self.objectives, output, batch)[0], {}

    def evaluate(self) -> dict[str, float]:
        if self.dev is None:
            return {"score": 0.0}
        hypotheses = []
        where = device_of(self.model)
        for audio, lengths in self.dev.batches():
            with autocast(where, self.config.optim.bf16):
                log_probs, count = self.model.log_probs(audio.to(where), lengths.to(where))
            for row, frames in zip(log_probs, count.tolist(), strict=True):
                best = torch.unique_consecutive(row[:frames].argmax(-1))
                hypotheses.append(self.tokenizer.decode([i for i in best.tolist() if i != BLANK]))
        rates = error_rate(self.dev.texts, hypotheses)
        return {"score": rates["wer"], **rates}

    def artifacts(self) -> dict[str, Content]:
        return {
            "model.safetensors": dict(self.model.state_dict()),
            "model.json": to_dict(self.config.ctc),
            self.tokenizer.file_name: self.tokenizer.path.read_bytes(),
        }
