"""A CTC model as AlignmentTeacher: the most probable path through the known text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...audio import SAMPLE_RATE
from ...errors import UserError
from ...text import normalize_for_training
from ...tokenizer import Tokenizer
from ..data.collate import pad_audio
from ..device import autocast
from ..model.ctc import BLANK, CTCModel, best_of
from .spans import piece_items, spread
from .teacher import AlignedText
from .viterbi import ctc_viterbi, span_scores


class LogProbs(Protocol):
    """What is needed of a CTC model."""

    frame_seconds: float

    def log_probs(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """audio float32 [B, N], 16 kHz, sample counts [B] -> log_probs [B, T, V], frame counts [B]."""


class CTCTeacher:
    """Aligns normalised texts, whose characters the tokenizer has."""

    scored = True

    def __init__(
        self,
        model: LogProbs,
        tokenizer: Tokenizer,
        identity: dict[str, Any] | None = None,
        *,
        offset: float = 0.0,
        device: str = "cpu",
        peaks: bool = False,
    ):
        """offset: seconds added to all times, to take out a bias of the model. device: where it is.

        peaks: leave the times of the CTC's peaks as they are, instead of spreading them over the blanks between.
        """
        self.model, self.tokenizer = model, tokenizer
        # part files of earlier versions have these keys
        self.identity = {"shift": offset, "peaks": peaks} | (identity or {})
        self.offset, self.device, self.peaks = offset, device, peaks
        self.clean: Callable[[str], str] = normalize_for_training

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", **settings: Any) -> CTCTeacher:
        """The teacher of a training run (task: ctc). Raises UserError."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give the training run of a CTC model")
        tokenizer = Tokenizer(best_of(folder) / "tokenizer.model")
        model = CTCModel.load(folder).to(device).eval()
        # a run that has been trained further since is another teacher
        weights = [
            p.stat().st_mtime_ns for p in (*folder.glob("*.safetensors"), *folder.glob("best/*.safetensors"))
        ]
        identity = {"teacher": str(folder.resolve()), "weights": max(weights, default=0)}
        return cls(model, tokenizer, identity, device=device, **settings)

    def align(self, audio: Sequence[np.ndarray], texts: Sequence[str]) -> list[AlignedText | None]:
        ids = [self.tokenizer.encode(text) for text in texts]
        padded, lengths = pad_audio(audio)
        # in 8 bits of mantissa the encoder takes half the time, and no boundary moves by more than a frame
        with torch.inference_mode(), autocast(torch.device(self.device), bf16=True):
            log_probs, frames = self.model.log_probs(padded.to(self.device), lengths.to(self.device))
        log_probs, frames = log_probs.float().cpu(), frames.cpu()
        targets = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.int64)
        for row, sequence in zip(targets, ids, strict=True):
            row[: len(sequence)] = torch.tensor(sequence, dtype=torch.int64)
        spans = ctc_viterbi(log_probs, frames, targets, torch.tensor([len(s) for s in ids]), BLANK)
        scores = span_scores(log_probs, targets, spans)
        results: list[AlignedText | None] = []
        for b, sequence in enumerate(ids):
            if spans.scores[b] == float("-inf"):
                results.append(None)
                continue
            n, seconds = len(sequence), len(audio[b]) / SAMPLE_RATE
            items = piece_items(
                self.tokenizer.pieces(sequence),
                spans.starts[b, :n].tolist(),
                spans.ends[b, :n].tolist(),
                scores[b, :n].tolist(),
                frame_seconds=self.model.frame_seconds,
                duration=seconds,
                offset=self.offset,
            )
            items = items if self.peaks else spread(items, seconds)
            results.append(AlignedText(pieces=items, score=spans.scores[b].item() / max(int(frames[b]), 1)))
        return results
