"""Training the recogniser: cross-entropy on the interleaving of one fixed alignment.

Either jointly from audio or on the cached frames of a frozen encoder (hundreds of times real time); with text alone,
spliced speech, a perturbed alignment, and an offline recogniser as distillation teacher where the configuration asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...text import normalize_for_training
from ..config import ModelConfig, RunConfig
from ..data.collate import pad_audio, pad_integers, pad_rows, pad_to_chunks, present
from ..data.frame_cache import FrameCache
from ..data.labels import Labels
from ..data.sources.audio import AudioSource
from ..data.sources.base import BatchSource, Example, Mixture
from ..data.sources.cached_frames import CachedFrames
from ..data.sources.spliced import SplicedSource, Splicer
from ..data.sources.text import TextSource
from ..data.spec_augment import SpecAugment
from ..distributed import rank_and_world_size
from ..model.decoders import Path as Interleaving
from ..model.offline_teacher import STREAMING_ONLY, OfflineTeacher
from ..model.reallm import ReaLLM
from ..objectives.base import IGNORE, ModelOutput, Objective
from ..objectives.cross_entropy import CrossEntropy, piece_accuracy
from ..objectives.frame_distillation import FrameDistillation
from ..objectives.soft_labels import SoftLabels
from ..targets.dynamic_oracle import dynamic_oracle
from ..targets.interleaving import Interleaved, interleave
from ..targets.labels import end_chunks
from ..targets.perturbation import perturb
from ..teacher_forcing import random_pieces, scheduled_sampling
from ..weights import interpolate
from .base import load_tokenizer, started, total_loss
from .lm import TextBatch
from .streaming import StreamingTask


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaLLMConfig(RunConfig):
    """A run of `task: reallm`: the recogniser. See RunConfig for what all runs share.

    model, data.tokenizer: the recogniser and its pieces.
    cache: folder of encoder frames to train on: what is frozen of the encoder never runs in the loop.
    text, text_share: text files, and the share of batches on text alone, so that the decoder keeps its English.
    splice_share: with `cache`, share of batches on spliced speech, words of the recordings in the order of `text`.
    blank_weight, label_smoothing: of the cross-entropy; weight of BLANK targets against pieces.
    piece_noise_prob: probability of replacing a fed-back piece by a random one.
    scheduled_sampling_prob: probability of replacing one by a draw from the model's own prediction there.
    perturbation_prob: probability that the path leaves the alignment at a piece, by being some chunks late or one
        early or, a quarter as often, by emitting the last pieces again; the targets are then those of the dynamic
        oracle.
    distillation_teacher: folder with the weights of an offline recogniser.
    teacher_padding_seconds: silence after every example of the teacher (see DistillConfig).
    soft_label_weight: how much of a piece's label is the teacher's prediction.
    frame_distillation_weight: of the squared error to the teacher's frames, in parts of their variance.
    weight_interpolation: how far from what `init` gave towards the teacher's weights the decoder begins; what it has
        learnt comes back soon, what it has forgotten is there again (WiSE-FT, Wortsman et al., CVPR 2022).
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "teacher": "distillation_teacher",
        "teacher_tail": "teacher_padding_seconds",
        "teacher_share": "soft_label_weight",
        "target_frames": "frame_distillation_weight",
        "teacher_mix": "weight_interpolation",
        "piece_noise": "piece_noise_prob",
        "piece_sampling": "scheduled_sampling_prob",
        "stray": "perturbation_prob",
    }

    model: ModelConfig | None = None
    cache: str | None = None
    text: tuple[str, ...] = ()
    text_share: float = 0.0
    splice_share: float = 0.0
    blank_weight: float = 1.0
    label_smoothing: float = 0.0
    piece_noise_prob: float = 0.0
    scheduled_sampling_prob: float = 0.0
    perturbation_prob: float = 0.0
    distillation_teacher: str | None = None
    teacher_padding_seconds: float = 0.0
    soft_label_weight: float = 0.5
    frame_distillation_weight: float = 0.0
    weight_interpolation: float = 0.0

    def __post_init__(self) -> None:
        self.need(model=self.model, data__tokenizer=self.data.tokenizer)
        if self.data.shuffle_prob:
            raise UserError("data.shuffle_prob is for distill runs: labels do not follow the sounds")
        if self.splice_share and not self.cache:
            raise UserError("splice_share works on cached frames: name a folder as `cache`")
        if (self.splice_share or self.text_share) and not self.text:
            raise UserError(f"{'splice' if self.splice_share else 'text'}_share needs `text`")
        if self.cache and self.optim.encoder_lr_scale:
            raise UserError("`cache` needs a frozen encoder: set optim.encoder_lr_scale to 0")
        if self.cache and self.distillation_teacher:
            raise UserError("a run with `distillation_teacher` trains from audio, without `cache`")


@dataclass(kw_only=True, slots=True)
class ReaLLMBatch:
    """Frames [B, T, D] or audio [B, N], the flush included; label delay [B] chunks; an interleaving [B, P].

    Beyond its end targets are IGNORE and soft_label_mask is False. clean [B, N]: the audio without noise, of lengths
    [B] samples, for a distillation teacher. encoder_delay: the label delay as the encoder needs it, a number, the same
    for all rows where it makes a difference. in_blocks: the frames are those of recordings in large blocks.
    """

    frames: Tensor | None = None
    audio: Tensor | None = None
    clean: Tensor | None = None
    lengths: Tensor | None = None
    delay: Tensor
    encoder_delay: int
    in_blocks: bool = False
    pieces: Tensor
    chunks: Tensor
    targets: Tensor
    soft_label_mask: Tensor
    num_targets: int


class ReaLLMTask(StreamingTask):
    """task: reallm"""

    config: ReaLLMConfig
    model: ReaLLM

    # of a line of text without speech
    clean_text = staticmethod(normalize_for_training)

    def __init__(self, config: ReaLLMConfig):
        super().__init__()
        assert config.model is not None and config.data.tokenizer is not None
        self.config, self.model_config = config, config.model
        self.tokenizer = load_tokenizer(config.data.tokenizer, config.model.vocab_size, "model.vocab_size")
        self.model = ReaLLM(config.model)
        if config.perturbation_prob and not self.model.decoder.path_independent:
            raise UserError(
                "perturbation_prob needs a cross-attending decoder: its answers do not depend on the path"
            )
        # of published weights the decoder's too, where there is a decoder for them
        pieces = self.tokenizer if self.model.decoder.path_independent else None
        started(self.model, config.init, pieces)
        self.rank, self.world_size = rank_and_world_size()
        self.flush_chunks = max(config.model.delays)
        self.augment = SpecAugment(config.data.augment)
        self.cross_entropy = CrossEntropy(
            blank_id=config.model.blank_id,
            blank_weight=config.blank_weight,
            label_smoothing=config.label_smoothing,
        )
        self.text_objectives: list[Objective] = [CrossEntropy()]
        self.teacher = self._load_teacher() if config.distillation_teacher else None
        self.distillation: list[Objective] = []
        if self.teacher is not None:
            self.distillation = [
                SoftLabels(config.soft_label_weight, self.teacher),
                FrameDistillation(config.frame_distillation_weight),
            ]
        self.source = self._source()
        self.dev = self.dev_set(config, self.tokenizer, frozen=bool(config.cache))

    def _load_teacher(self) -> OfflineTeacher:
        config, decoder = self.config, self.model.decoder
        if not decoder.path_independent:
            raise UserError(
                "distillation_teacher needs a cross-attending decoder: that is what an offline one can teach"
            )
        assert config.distillation_teacher is not None
        teacher = OfflineTeacher(
            config.distillation_teacher, self.model_config, self.tokenizer, config.teacher_padding_seconds
        )
        interpolate(decoder, teacher.model.decoder, config.weight_interpolation, leave=STREAMING_ONLY)
        return teacher

    def _source(self) -> BatchSource:
        config, model, share = self.config, self.model_config, (self.rank, self.world_size)
        others: list[tuple[float, BatchSource]] = []
        if config.text_share:
            folder, seconds = Path(config.out), config.data.batch_seconds
            text = TextSource(
                config.text, self.tokenizer, folder, seconds, config.seed, *share, clean=self.clean_text
            )
            others.append((config.text_share, text))
        if not config.cache:
            main: BatchSource = AudioSource(
                config.data, config.seed, *share, chunk_samples=model.chunk_samples, tokenizer=self.tokenizer
            )
            return Mixture(main, others, config.seed)
        encoder = self.model.encoder.eval().requires_grad_(False)
        cache = FrameCache(config.cache, encoder, config.data, self.flush_chunks, config.optim.bf16)
        seconds = model.chunk_ms / 1000
        main = CachedFrames(
            cache, config.data, config.seed, *share, chunk_seconds=seconds, tokenizer=self.tokenizer
        )
        if config.splice_share:
            splicer = Splicer(cache, self.tokenizer, config.text, seconds / encoder.frames_per_chunk)
            others.append((config.splice_share, SplicedSource(splicer, main, self.flush_chunks)))
        return Mixture(main, others, config.seed)

    # -- batches

    def collate(self, examples: list[Example], rng: np.random.Generator) -> ReaLLMBatch | TextBatch:
        if examples[0].audio is None and examples[0].frames is None:
            return TextBatch.collated(examples)
        in_blocks = self._in_blocks(rng)
        delays = self._delays(len(examples), rng)
        if in_blocks:
            delays = np.full(len(examples), self.model_config.file_delay)
        sequences = [
            self._targets(e.labels, e.chunks, int(d), rng)
            for e, d in zip(examples, delays, strict=True)
            if e.labels
        ]
        targets = pad_integers([s.targets for s in sequences], IGNORE)
        inputs: dict[str, Tensor] = {}
        if examples[0].frames is not None:
            inputs["frames"] = pad_rows(present(e.frames for e in examples))
        else:
            audio, inputs["lengths"] = pad_audio(present(e.audio for e in examples))
            extra = self.flush_chunks + self.model_config.encoder.lookahead_chunks
            inputs["audio"] = pad_to_chunks(audio, self.model_config.chunk_samples, extra)
            inputs["clean"] = pad_rows(present(e.clean for e in examples))
        return ReaLLMBatch(
            delay=torch.as_tensor(delays),
            encoder_delay=int(delays[0]),
            in_blocks=in_blocks,
            pieces=pad_integers([s.pieces for s in sequences], -1),
            chunks=pad_integers([s.chunks for s in sequences], -1),
            targets=targets,
            soft_label_mask=pad_integers([s.soft_label_mask for s in sequences], False),
            num_targets=int((targets != IGNORE).sum()),
            **inputs,
        )

    def _in_blocks(self, rng: np.random.Generator) -> bool:
        """Whether a batch is of recordings in large blocks, for models that have these: as often as of one delay."""
        if self.model.block_encoder is None:
            return False
        return bool(rng.random() * (len(self.model_config.delays) + 1) < 1)

    def _delays(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """A label delay for each of this process's `count` examples; one for all where frames depend on it."""
        model = self.model_config
        if model.encoder.frames_depend_on_delay:
            return np.full(count, rng.choice(model.delays))
        # drawn for the rows of the other processes too, so that the batch is the same whatever their number
        rows = (count - 1) * self.world_size + self.rank + 1
        return rng.choice(model.delays, rows)[self.rank :: self.world_size]

    def _targets(self, labels: Labels, chunks: int, delay: int, rng: np.random.Generator) -> Interleaved:
        model, pieces = self.model_config, np.asarray(labels.pieces, np.int64)
        ends = np.array(end_chunks(labels.ends, model.chunk_ms, chunks), np.int64)
        limits = {"blank": model.blank_id, "cap": model.max_pieces_per_chunk}
        if not self.config.perturbation_prob:
            return interleave(pieces, ends, chunks, delay, **limits)
        kept, where = perturb(ends, self.config.perturbation_prob, rng)
        path = interleave(pieces[kept], where, chunks, delay, **limits)
        return dynamic_oracle(path, kept, pieces, ends, delay, model.blank_id)

    # -- loss

    def forward(self, batch: ReaLLMBatch | TextBatch) -> tuple[Tensor, dict[str, Tensor]]:
        if isinstance(batch, TextBatch):
            output = ModelOutput(logits=self.model.decoder.text_logits(batch.pieces).float())
            return total_loss(self.text_objectives, output, batch)[0], {}
        encoder = self.model.encoder
        frames = self._block_frames(batch) if batch.in_blocks else self.frames_of(batch)
        logits = self._logits(frames, batch, self._fed(frames, batch) if self.training else batch.pieces)
        output = ModelOutput(logits=logits)
        objectives: list[Objective] = [self.cross_entropy]
        if self.teacher is not None and self.training:
            assert batch.clean is not None and batch.lengths is not None
            output = ModelOutput(
                logits=logits,
                frames=frames.float()[
                    :, encoder.frame_offset(batch.encoder_delay) * encoder.frames_per_chunk :
                ],
                target_frames=self.teacher.frames(batch.clean, batch.lengths),
                frame_lengths=(batch.lengths + encoder.hop - 1) // encoder.hop,
            )
            # the encoder of blocks is frozen
            objectives += self.distillation[:1] if batch.in_blocks else self.distillation
        loss, metrics = total_loss(objectives, output, batch)
        metrics["piece_accuracy"] = piece_accuracy(logits, batch.targets, self.model_config.blank_id)
        del metrics["cross_entropy"]
        return loss, metrics

    @torch.no_grad()
    def _block_frames(self, batch: ReaLLMBatch) -> Tensor:
        """Frames [B, C * F, D] with every example as one block, as late as those of a stream with that delay."""
        encoder, blocks = self.model.encoder, self.model.block_encoder
        assert blocks is not None and batch.audio is not None
        late = encoder.frame_offset(batch.encoder_delay)
        kept = batch.audio.shape[1] // encoder.chunk_samples - late
        audio = batch.audio[:, : kept * encoder.chunk_samples]
        frames = blocks.block(audio, torch.ones(len(audio), kept, device=audio.device))
        return torch.nn.functional.pad(frames, (0, 0, late * encoder.frames_per_chunk, 0))

    def _logits(self, frames: Tensor, batch: ReaLLMBatch, pieces: Tensor) -> Tensor:
        return self.model(frames, batch.delay, Interleaving(pieces=pieces, chunks=batch.chunks)).float()

    def _fed(self, frames: Tensor, batch: ReaLLMBatch) -> Tensor:
        """The pieces [B, P] that the decoder is fed in training."""
        config, pieces = self.config, batch.pieces
        if config.scheduled_sampling_prob:
            with torch.no_grad():
                logits = self._logits(frames.detach(), batch, pieces)
            pieces = scheduled_sampling(pieces, logits, config.scheduled_sampling_prob)
        if config.piece_noise_prob:
            pieces = random_pieces(pieces, config.piece_noise_prob, self.model_config.vocab_size)
        return pieces
