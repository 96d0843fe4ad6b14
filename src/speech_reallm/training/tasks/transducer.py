"""Training a transducer (RNN-T) on the encoder of the recogniser: the paper's rival, which needs no alignment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...text import clean_cased, normalize_for_training
from ..config import ModelConfig, RunConfig
from ..data.collate import pad_audio, pad_integers, pad_rows, pad_to_chunks, present
from ..data.frame_cache import FrameCache
from ..data.sources.audio import AudioSource
from ..data.sources.base import BatchSource, Example
from ..data.sources.cached_frames import CachedFrames
from ..data.spec_augment import SpecAugment
from ..distributed import rank_and_world_size
from ..model.decoders.transducer import TransducerDecoder
from ..model.reallm import ReaLLM
from ..objectives.base import ModelOutput
from ..objectives.transducer import TransducerLoss
from .base import load_tokenizer, started, total_loss
from .streaming import StreamingTask


@dataclass(frozen=True, kw_only=True, slots=True)
class TransducerConfig(RunConfig):
    """A run of `task: transducer`: the recogniser with `decoder.kind: transducer`. See RunConfig for what all share.

    model, data.tokenizer: the recogniser and its pieces. The lattice has a logit for each embedding, place in the text
        and piece: a batch of 90 s with 1,000 pieces takes 200 MB for it, with 32,000 pieces 6 GB.
    cache: folder of encoder frames to train on: what is frozen of the encoder never runs in the loop.
    cased: train on the text as written, with case and punctuation, instead of lower-case words.
    """

    model: ModelConfig | None = None
    cache: str | None = None
    cased: bool = False

    def __post_init__(self) -> None:
        self.need(model=self.model, data__tokenizer=self.data.tokenizer)
        if self.data.shuffle_prob:
            raise UserError("data.shuffle_prob is for distill runs: labels do not follow the sounds")
        if self.cache and self.optim.encoder_lr_scale:
            raise UserError("`cache` needs a frozen encoder: set optim.encoder_lr_scale to 0")


@dataclass(kw_only=True, slots=True)
class TransducerBatch:
    """Frames [B, T, D] or audio [B, N], the flush included; label delay [B] chunks.

    lengths: embeddings of each row [B], those of the label delay included. pieces [B, U] of piece_lengths [B].
    encoder_delay: the label delay as the encoder needs it, the same for all rows where it makes a difference.
    """

    frames: Tensor | None = None
    audio: Tensor | None = None
    delay: Tensor
    encoder_delay: int
    lengths: Tensor
    pieces: Tensor
    piece_lengths: Tensor
    num_targets: int


class TransducerTask(StreamingTask):
    """task: transducer"""

    config: TransducerConfig
    model: ReaLLM

    def __init__(self, config: TransducerConfig):
        super().__init__()
        assert config.model is not None and config.data.tokenizer is not None
        self.config, self.model_config = config, config.model
        self.tokenizer = load_tokenizer(config.data.tokenizer, config.model.vocab_size, "model.vocab_size")
        self.model = ReaLLM(config.model)
        decoder = self.model.decoder
        if not isinstance(decoder, TransducerDecoder):
            raise UserError("a transducer run needs `model.decoder.kind: transducer`")
        self.decoder = (decoder,)
        started(self.model, config.init)
        self.augment = SpecAugment(config.data.augment)
        self.objectives = [TransducerLoss(blank_id=config.model.blank_id)]
        self.source = self._source()
        self.dev = self.dev_set(config, self.tokenizer, frozen=bool(config.cache))

    def _source(self) -> BatchSource:
        config, model, share = self.config, self.model_config, rank_and_world_size()
        if not config.cache:
            return AudioSource(config.data, config.seed, *share, chunk_samples=model.chunk_samples)
        encoder = self.model.encoder.eval().requires_grad_(False)
        cache = FrameCache(config.cache, encoder, config.data, max(model.delays), config.optim.bf16)
        return CachedFrames(cache, config.data, config.seed, *share, chunk_seconds=model.chunk_ms / 1000)

    def collate(self, examples: list[Example], rng: np.random.Generator) -> TransducerBatch:
        model = self.model_config
        clean = clean_cased if self.config.cased else normalize_for_training
        pieces = [np.asarray(self.tokenizer.encode(clean(e.text)), np.int64) for e in examples]
        # one for all: frames may depend on it
        delay = int(rng.choice(model.delays))
        inputs: dict[str, Tensor] = {}
        if examples[0].frames is not None:
            inputs["frames"] = pad_rows(present(e.frames for e in examples))
        else:
            audio, _ = pad_audio(present(e.audio for e in examples))
            extra = max(model.delays) + model.encoder.lookahead_chunks
            inputs["audio"] = pad_to_chunks(audio, model.chunk_samples, extra)
        return TransducerBatch(
            delay=torch.full((len(examples),), delay),
            encoder_delay=delay,
            lengths=torch.tensor([e.chunks + delay for e in examples]),
            pieces=pad_integers(pieces, -1),
            piece_lengths=torch.tensor([len(p) for p in pieces]),
            # every path through the lattice has as many symbols
            num_targets=sum(len(p) + e.chunks + delay for p, e in zip(pieces, examples, strict=True)),
            **inputs,
        )

    def forward(self, batch: TransducerBatch) -> tuple[Tensor, dict[str, Tensor]]:
        frames = self.frames_of(batch)
        speech = self.model.embed_speech(frames, batch.delay)[:, : int(batch.lengths.max())]
        logits = self.decoder[0].lattice_logits(speech, batch.pieces).float()
        output = ModelOutput(logits=logits, lengths=batch.lengths)
        return total_loss(self.objectives, output, batch)[0], {}
