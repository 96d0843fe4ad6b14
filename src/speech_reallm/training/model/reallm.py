"""The ReaLLM model: streaming encoder, stacker, decoder-only LM, BLANK. (Seide et al., Interspeech 2024.)"""

from __future__ import annotations

from torch import Tensor, nn

from ..config import ModelConfig
from .decoders import Path, build_decoder
from .encoders import build_encoder
from .encoders.block_encoder import BlockEncoder
from .stacker import Stacker


class ReaLLM(nn.Module):
    """`encoder`, `stacker`, `decoder`, a vector for each label delay, and `block_encoder` where recordings have one."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder, config.chunk_ms)
        self.block_encoder = BlockEncoder(config) if config.file_blocks else None
        self.decoder = build_decoder(config, self.encoder.dim, self.encoder.frames_per_chunk)
        self.stacker = Stacker(self.encoder.frames_per_chunk, self.encoder.dim, self.decoder.dim)
        self.label_delay_embedding = nn.Embedding(max(config.delays) + 1, self.decoder.dim)
        nn.init.normal_(self.label_delay_embedding.weight, std=0.02)
        if self.decoder.zero_speech_at_start:
            new = self.stacker.project
            for weight in (self.label_delay_embedding.weight, new.weight, new.bias):
                nn.init.zeros_(weight)

    def embed_speech(self, frames: Tensor, delay: Tensor) -> Tensor:
        """frames [B, C * F, D], delay [B] chunks -> speech embeddings [B, C, decoder width]"""
        return self.stacker(frames) + self.label_delay_embedding(delay)[:, None]

    def forward(self, frames: Tensor, delay: Tensor, path: Path) -> Tensor:
        """Encoder frames [B, C * F, D], label delay [B], interleaving [B, T] -> logits [B, T, V]."""
        return self.decoder(self.embed_speech(frames, delay), frames, path)

    def step(
        self, audio: Tensor, state: dict[str, Tensor], delay: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The encoder's part of a step. audio [B, S], its state, delay [B] -> embedding [B, W], frames, new state."""
        frames, new = self.encoder.step(audio, state, delay)
        return self.embed_speech(frames, delay)[:, 0], frames, new
