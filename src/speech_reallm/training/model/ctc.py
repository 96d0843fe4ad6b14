"""A full-context encoder with a CTC output, the alignment teacher (Graves et al., ICML 2006)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from ...audio import SAMPLE_RATE
from ...errors import UserError
from ..config import CTCConfig, build
from .encoders import build_encoder
from .encoders.waveform import Layer
from .layers.module_list import ModuleList

BLANK = 3


class CTCModel(nn.Module):
    """Encoder, `head_layers` transformer layers, projection to the pieces; BLANK is id 3."""

    def __init__(self, config: CTCConfig):
        super().__init__()
        if not config.encoder.full_context:
            raise UserError("ctc.encoder.full_context must be true: the whole utterance is its context")
        self.config = config
        self.encoder = build_encoder(config.encoder, config.chunk_ms)
        self.head = ModuleList(
            Layer(config.encoder, self.encoder.frames_per_chunk) for _ in range(config.head_layers)
        )
        self.norm = nn.LayerNorm(self.encoder.dim)
        self.project = nn.Linear(self.encoder.dim, config.vocab_size)
        self.hop = self.encoder.hop
        self.frame_seconds = self.hop / SAMPLE_RATE

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Samples to frames."""
        return (lengths + self.hop - 1) // self.hop

    def encode(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """audio [B, N] -> encoder frames [B, T, D]"""
        short = -audio.shape[1] % self.encoder.chunk_samples
        return self.encoder(nn.functional.pad(audio, (0, short)), lengths)

    def classify(self, frames: Tensor, frame_lengths: Tensor) -> Tensor:
        """Encoder frames [B, T, D] -> log probabilities [B, T, V] float32"""
        valid = torch.arange(frames.shape[1], device=frames.device)[None] < frame_lengths[:, None]
        for layer in self.head:
            frames = layer.forward_full(frames, valid)
        return torch.log_softmax(self.project(self.norm(frames)).float(), -1)

    def log_probs(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """audio [B, N] float32 16 kHz, lengths [B] samples -> log probabilities [B, T, V], frames [B]"""
        count = self.frame_lengths(lengths)
        log_probs = self.classify(self.encode(audio, lengths), count)
        return log_probs[:, : int(count.max())], count

    @classmethod
    def load(cls, folder: str | Path) -> CTCModel:
        """A trained model from its run's folder (or the run's best/). Raises UserError."""
        from safetensors.torch import load_file

        folder = best_of(folder)
        try:
            config = build(CTCConfig, json.loads((folder / "model.json").read_text(encoding="utf-8")))
            model = cls(config)
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, ValueError, RuntimeError) as err:
            raise UserError(
                f"{folder} is not a CTC model, which the alignment teacher is: {str(err)[:200]}"
            ) from None
        return model.eval()


def best_of(folder: str | Path) -> Path:
    """folder/best where there is one, else folder."""
    best = Path(folder) / "best"
    return best if best.is_dir() else Path(folder)
