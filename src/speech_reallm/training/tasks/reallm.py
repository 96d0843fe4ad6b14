"""Training the recogniser: cross-entropy on the interleaving of one fixed alignment.

Either jointly from audio or on the cached frames of a frozen encoder (hundreds of times real time).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import UserError
from ...tokenizer import START, Tokenizer
from ..checkpoint import init_from
from ..config import TrainConfig, to_dict
from ..data.augment import SpecAugment
from ..data.batches import AudioBatches, pad_to_chunks, plan_epoch, prefetch
from ..data.frame_cache import FrameCache, encode_batch
from ..data.sources.spliced import Splicer
from ..dev_set import DevSet, error_rate
from ..device import device_of, own_device
from ..loop import world
from ..model.offline_teacher import OfflineTeacher
from ..model.reallm import ReaLLM
from ..targets.interleaving import Interleaved, due, end_chunks, interleave, strayed
from .distill import frame_error
from .lm import TextWindows, text_loss

IGNORE = -100


@dataclasses.dataclass(kw_only=True, slots=True)
class ReaLLMBatch:
    """Frames [B, T, D] or audio [B, N]; delay [B] chunks; interleaving [B, P], beyond whose end targets are
    IGNORE and follows is False.

    `clean` [B, N] is the audio without noise, of `lengths` [B] samples, for a teacher.
    """

    frames: Tensor | None = None
    audio: Tensor | None = None
    clean: Tensor | None = None
    lengths: Tensor | None = None
    delay: Tensor
    # the delay as the encoder needs to know it: a number, the same for all where it makes a difference
    encoder_delay: int
    pieces: Tensor
    chunks: Tensor
    targets: Tensor
    follows: Tensor


@dataclasses.dataclass(kw_only=True, slots=True)
class Labels:
    """Pieces of one utterance and where each ends, in seconds."""

    pieces: list[int]
    ends: list[float]


def labels_of(cut: Cut, tokenizer: Tokenizer) -> Labels:
    """Pieces and end times from an aligned cut. Raises UserError for a cut without an alignment."""
    alignment = (cut.supervisions[0].alignment or {}).get("piece")
    if not alignment and cut.supervisions[0].text:
        raise UserError(f"{cut.id} has no alignment: make the manifest with `reallm align`")
    items = alignment or []
    return Labels(pieces=[tokenizer.id(i.symbol) for i in items], ends=[i.start + i.duration for i in items])


class ReaLLMTask(nn.Module):
    """task: reallm"""

    def __init__(self, config: TrainConfig):
        super().__init__()
        if config.model is None or config.data.tokenizer is None:
            raise UserError("a reallm run needs `model` and `data.tokenizer`")
        self.config = config
        model = config.model
        self.tokenizer = Tokenizer(config.data.tokenizer)
        if self.tokenizer.vocab_size != model.vocab_size:
            raise UserError(f"model.vocab_size must be the tokenizer's, {self.tokenizer.vocab_size}")
        self.model = ReaLLM(model)
        # a published decoder's pieces are looked up only where there is a decoder for them
        pieces = self.tokenizer if self.model.reads else None
        for folder in config.init:
            init_from(self.model, folder, tokenizer=pieces)
        self.teacher: OfflineTeacher | None = None
        if config.teacher:
            if config.cache or not self.model.reads:
                raise UserError(
                    "a reallm run with `teacher` trains a reading decoder from audio, without `cache`"
                )
            self.teacher = OfflineTeacher(config.teacher, model, self.tokenizer, config.teacher_tail)
            self.teacher.mix_into(self.model.decoder, config.teacher_mix)
        self.model.to(own_device())
        if config.stray and not self.model.reads:
            raise UserError("stray: only a reading decoder's answers do not depend on its path")
        self.augment = SpecAugment(config.data.augment)
        self.rank, self.world = world()
        self.tail = max(model.delays)
        if config.data.shuffle_prob:
            raise UserError("data.shuffle_prob is for distill runs: labels do not follow the sounds")
        if config.splice_share and not config.cache:
            raise UserError("splice_share works on cached frames: name a folder as `cache`")
        self.cache: FrameCache | None = None
        self.data: AudioBatches | None = None
        if config.cache:
            if config.optim.encoder_lr_scale:
                raise UserError("`cache` needs a frozen encoder: set optim.encoder_lr_scale to 0")
            encoder = self.model.encoder.eval()
            for parameter in encoder.parameters():
                parameter.requires_grad_(False)
            self.cache = FrameCache(
                config.cache, encoder, config.data, self.tail, config.seed, config.optim.bf16
            )
        else:
            self.data = AudioBatches(config.data, config.seed, self.rank, self.world)
        self.splicer = None
        if config.splice_share:
            if not config.text:
                raise UserError("splice_share needs `text`")
            seconds = model.chunk_ms / 1000 / self.model.encoder.frames_per_chunk
            self.splicer = Splicer(self.cache, self.tokenizer, config.text, seconds)
        self.text = None
        if config.text_share:
            size = max(1, round(config.data.batch_seconds / 36))
            self.text = TextWindows(config.text, self.tokenizer, Path(config.out), config.seed, size)
        self.dev = DevSet(config.data) if config.data.dev else None
        self._dev_frames: list[Tensor] = []

    # -- batches

    def _plan(self, epoch: int) -> list:
        """Each batch: a list of examples, each a tuple of numbers of cached entries; or audio's own plan."""
        if self.data is not None:
            return self.data.plan(epoch)
        said = [(e.cut.supervisions[0], e.seconds) for e in self.cache.entries]
        repeats = [e.repeat / self._variants for e in self.cache.entries]
        return plan_epoch(said, repeats, self.config.data, self.config.seed, epoch)

    @property
    def _variants(self) -> int:
        """Speeds cached: an epoch takes each utterance once, at one of them."""
        return max(1, len(set(self.config.data.augment.speeds)))

    def steps_in_epoch(self, epoch: int) -> int:
        return len(self._plan(epoch))

    def epoch(self, epoch: int, start: int) -> Iterator[ReaLLMBatch | Tensor | None]:
        plan = self._plan(epoch)[start:]
        texts = self.text.plan(epoch) if self.text else []

        def load(numbered: tuple[int, list]) -> ReaLLMBatch | Tensor | None:
            number, batch = numbered
            rng = np.random.default_rng((self.config.seed, epoch, number, 5))
            if self.text and rng.random() < self.config.text_share:
                return self.text.batch(texts[number % len(texts)][self.rank :: self.world])
            if self.splicer and rng.random() < self.config.splice_share:
                return self._splice(batch, rng)
            return self._load(batch, epoch, number, rng)

        yield from prefetch(list(enumerate(plan, start)), load)

    def _load(
        self, batch: list[tuple[int, ...]], epoch: int, number: int, rng: np.random.Generator
    ) -> ReaLLMBatch | None:
        if len(batch) <= self.rank:
            return None
        model = self.config.model
        delays = self._delays(len(batch), rng)[self.rank :: self.world]
        if self.data is not None:
            audio = self.data.load(batch, epoch, number)
            size = model.chunk_samples
            sequences = []
            for row, (cuts, delay) in enumerate(zip(audio.cuts, delays, strict=True)):
                labels = join([(labels_of(c, self.tokenizer), c.duration) for c in cuts])
                chunks = -(-int(audio.lengths[row]) // size)
                sequences.append(self._interleave(labels, chunks, int(delay), rng))
            extra = self.tail + model.encoder.lookahead_chunks
            heard = pad_to_chunks(audio.audio, size, extra)
            return self._collate(sequences, delays, audio=heard, clean=audio.clean, lengths=audio.lengths)
        rows, sequences = [], []
        per = self.model.encoder.frames_per_chunk
        for indices, delay in zip(batch[self.rank :: self.world], delays, strict=True):
            entries = [self.cache.entries[i] for i in indices]
            frames = [self.cache.read(e)[: e.own] for e in entries[:-1]] + [self.cache.read(entries[-1])]
            rows.append(np.concatenate(frames))
            seconds = [e.own // per * model.chunk_ms / 1000 for e in entries]
            labels = join(
                [(labels_of(e.cut, self.tokenizer), s) for e, s in zip(entries, seconds, strict=True)]
            )
            sequences.append(self._interleave(labels, sum(e.own for e in entries) // per, int(delay), rng))
        return self._collate(sequences, delays, frames=self._pad(rows))

    def _delays(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """A delay for each of `count` utterances; one for all where it is the encoder's business."""
        model = self.config.model
        if model.encoder.delayed_chunks:
            return np.full(count, rng.choice(model.delays))
        return rng.choice(model.delays, count)

    def _splice(self, batch: list[tuple[int, ...]], rng: np.random.Generator) -> ReaLLMBatch | None:
        """Spliced utterances, about as long as those of the batch."""
        per = self.model.encoder.frames_per_chunk
        seconds = [sum(self.cache.entries[i].seconds for i in example) for example in batch]
        delays = self._delays(len(seconds), rng)
        rows, sequences = [], []
        for wanted, delay in list(zip(seconds, delays, strict=True))[self.rank :: self.world]:
            frames, pieces, ends = self.splicer.utterance(wanted, rng)
            chunks = -(-len(frames) // per)
            silence = self.splicer.silence((chunks + self.tail) * per - len(frames), rng)
            rows.append(np.concatenate((frames, silence)))
            sequences.append(self._interleave(Labels(pieces=pieces, ends=ends), chunks, int(delay), rng))
        if not rows:
            return None
        return self._collate(sequences, delays[self.rank :: self.world], frames=self._pad(rows))

    def _pad(self, rows: list[np.ndarray]) -> Tensor:
        padded = np.zeros((len(rows), max(map(len, rows)), self.cache.dim), np.float32)
        for row, frames in zip(padded, rows, strict=True):
            row[: len(frames)] = frames
        return torch.from_numpy(padded)

    def _interleave(self, labels: Labels, chunks: int, delay: int, rng: np.random.Generator) -> Interleaved:
        model, pieces = self.config.model, np.asarray(labels.pieces, np.int64)
        ends = np.array(end_chunks(labels.ends, model.chunk_ms, chunks), np.int64)
        kept, where = np.arange(len(ends)), ends
        if self.config.stray:
            kept, where = strayed(ends, self.config.stray, rng)
        sequence = interleave(pieces[kept], where, chunks, delay, model.blank_id, model.max_pieces_per_chunk)
        if self.config.stray:
            sequence = due(sequence, kept, pieces, ends, delay, model.blank_id)
        return sequence

    @staticmethod
    def _collate(sequences: list[Interleaved], delays: np.ndarray, **inputs: Tensor) -> ReaLLMBatch:
        def pad(rows: list[np.ndarray], value: int) -> Tensor:
            tensors = [torch.from_numpy(row) for row in rows]
            return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

        return ReaLLMBatch(
            delay=torch.as_tensor(delays),
            encoder_delay=int(delays[0]),
            pieces=pad([s.pieces for s in sequences], -1),
            chunks=pad([s.chunks for s in sequences], -1),
            targets=pad([s.targets for s in sequences], IGNORE),
            follows=pad([s.follows for s in sequences], False),
            **inputs,
        )

    # -- loss

    def count(self, batch: ReaLLMBatch | Tensor) -> int:
        if isinstance(batch, Tensor):
            return batch.shape[0] * (batch.shape[1] - 1)
        return int((batch.targets != IGNORE).sum())

    def forward(self, batch: ReaLLMBatch | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if isinstance(batch, Tensor):
            return text_loss(self.model.decoder, batch), {}
        augment = self.augment if self.augment and self.training else None
        if batch.audio is not None:
            frames = self.model.encoder(batch.audio, augment=augment, delay=batch.encoder_delay)
        else:
            frames = augment(batch.frames) if augment else batch.frames
        pieces = batch.pieces
        if self.training and self.config.piece_sampling:
            pieces = self._sampled(frames, batch)
        if self.training and self.config.piece_noise:
            hit = (torch.rand(pieces.shape, device=pieces.device) < self.config.piece_noise) & (pieces >= 0)
            pieces = torch.where(hit, torch.randint_like(pieces, 4, self.config.model.vocab_size), pieces)
        logits = self.model(frames, batch.delay, pieces, batch.chunks).float()
        loss, metrics = self._loss(logits, batch.targets)
        if self.teacher and self.training:
            taught, more = self._taught(batch, frames.float(), logits)
            loss, metrics = loss + taught, metrics | more
        return loss, metrics

    @torch.no_grad()
    def _sampled(self, frames: Tensor, batch: ReaLLMBatch) -> Tensor:
        """The batch's pieces [B, P], some of them drawn from the model's answers there, BLANK left out.

        Scheduled sampling in two passes (Mihaylova and Martins, ACL 2019 student workshop).
        """
        logits = self.model(frames.detach(), batch.delay, batch.pieces, batch.chunks).float()
        logits[..., :4] = -torch.inf
        # a draw from the softmax is the maximum of the logits with Gumbel noise
        drawn = (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)
        drawn = F.pad(drawn[:, :-1], (1, 0))
        hit = (torch.rand(drawn.shape, device=drawn.device) < self.config.piece_sampling) & (
            batch.pieces >= 0
        )
        return torch.where(hit, drawn, batch.pieces)

    def _taught(self, batch: ReaLLMBatch, frames: Tensor, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the teacher adds to the loss: its frames, and its opinions of the pieces written."""
        teacher, config, encoder = self.teacher, self.config, self.model.encoder
        frames = frames[:, encoder.shift(batch.encoder_delay) * encoder.frames_per_chunk :]
        target = teacher.frames(batch.clean, batch.lengths)
        hop = encoder.chunk_samples // encoder.frames_per_chunk
        size = min(target.shape[1], frames.shape[1])
        inside = torch.arange(size, device=frames.device)[None] < ((batch.lengths + hop - 1) // hop)[:, None]
        error = frame_error(frames[:, :size], target[:, :size], inside) / inside.sum()
        # the text alone, and after how many of its pieces each position stands
        written = batch.pieces >= 0
        place = written.int().argsort(dim=1, descending=True, stable=True)[:, : int(written.sum(1).max())]
        text = F.pad(batch.pieces.gather(1, place).clamp(min=0), (1, 0), value=START)
        opinion = teacher.answers(target, batch.lengths, text)
        # it says what comes after the last piece, and is not asked where something else should come
        row, step = batch.follows.nonzero(as_tuple=True)
        opinion = opinion[row, written.cumsum(1)[row, step]]
        log_probs = logits[row, step].log_softmax(-1)
        # both ways to say what is right share the weight of a piece: what the labels have of it is taken back
        right = log_probs.gather(-1, batch.targets[row, step][:, None]).squeeze(-1)
        taught = (right - (opinion * log_probs).sum(-1)).sum()
        metrics = {"frame_error": error.detach(), "taught": taught.detach() / max(len(row), 1)}
        return config.teacher_share * taught + config.teacher_frames * self.count(batch) * error, metrics

    def _loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        blank = self.config.model.blank_id
        weight = torch.ones(logits.shape[-1], device=logits.device)
        weight[blank] = self.config.blank_weight
        loss = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), weight, ignore_index=IGNORE, reduction="sum",
            label_smoothing=self.config.label_smoothing if self.training else 0.0,
        )  # fmt: skip
        with torch.no_grad():
            text = (targets != IGNORE) & (targets != blank)
            right = ((logits.argmax(-1) == targets) & text).sum() / text.sum().clamp(min=1)
        return loss, {"piece_accuracy": right}

    # -- watching

    def evaluate(self) -> dict[str, float]:
        if self.dev is None:
            return {"score": 0.0}
        model, encoder = self.config.model, self.model.encoder
        delay, hypotheses = model.default_delay, []
        if not self._dev_frames or not self.cache:
            self._dev_frames = [
                encode_batch(encoder, audio, lengths, self.tail, self.config.optim.bf16, delay)
                for audio, lengths in self.dev.batches()
            ]
        where = device_of(self.model)
        # what decoding makes for itself, caches and counters, has to be where the model is
        with contextlib.nullcontext() if where.type == "cpu" else where:
            for frames, (_, lengths) in zip(self._dev_frames, self.dev.batches(), strict=True):
                chunks = (lengths + model.chunk_samples - 1) // model.chunk_samples + delay
                pieces = self.model.greedy(frames, chunks.to(where), torch.full((len(lengths),), delay))
                hypotheses += [self.tokenizer.decode(ids) for ids in pieces]
        wer = error_rate(self.dev.texts, hypotheses)
        return {"score": wer["wer"], **wer}

    def files(self) -> dict[str, Any]:
        return {
            "model.safetensors": dict(self.model.state_dict()),
            "model.json": to_dict(self.config.model),
            "tokenizer.model": Path(self.config.data.tokenizer).read_bytes(),
        }


def join(parts: list[tuple[Labels, float]]) -> Labels:
    """Labels of utterances, each with its duration in seconds, said one after another."""
    pieces, ends, offset = [], [], 0.0
    for labels, seconds in parts:
        pieces += labels.pieces
        ends += [offset + min(e, seconds) for e in labels.ends]
        offset += seconds
    return Labels(pieces=pieces, ends=ends)
