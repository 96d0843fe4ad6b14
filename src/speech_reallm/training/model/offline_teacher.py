"""An offline recogniser of the same architecture as distillation teacher: its context is the whole utterance.

The student learns its frames and, where a piece is emitted, what it predicts: soft labels say more than the one right
piece, and what the teacher was trained on is not forgotten on a few voices.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ...audio import SAMPLE_RATE
from ...errors import UserError
from ...tokenizer import Tokenizer
from ..config import ModelConfig
from ..data.collate import pad_to_chunks
from ..device import own_device
from ..weights import init_from
from .decoders.cross_attention import CrossAttentionDecoder
from .encoders import Encoder, build_encoder

# names of weights that an offline decoder has no use for
STREAMING_ONLY = ("chunk_age", "chunks_since_piece.weight")
# chunks that the offline decoder attends to and pieces of its past: whole utterances
CHUNKS = 256
PIECES = 1024


@torch.no_grad()
def offline_frames(encoder: Encoder, audio: Tensor, lengths: Tensor, padding: int) -> Tensor:
    """Frames [B, T, D] float32 of a full-context encoder, with `padding` samples of silence after each utterance.

    audio [B, N], lengths [B] in samples. Without the padding its frames would depend on how near the end is, which
    no streaming encoder can tell.
    """
    padded = pad_to_chunks(nn.functional.pad(audio, (0, padding)), encoder.chunk_samples, 0)
    return encoder(padded, lengths + padding).float()


class _Offline(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        encoder = config.encoder.offline()
        self.encoder = build_encoder(encoder, config.chunk_ms)
        decoder = dataclasses.replace(
            config.decoder, cross_attention_chunks=CHUNKS, window=PIECES, dropout=0.0
        )
        whole = dataclasses.replace(config, decoder=decoder)
        self.decoder = CrossAttentionDecoder(whole, self.encoder.dim, self.encoder.frames_per_chunk)


class OfflineTeacher:
    """Frozen; not a module, so that it is neither trained nor saved with the student."""

    def __init__(self, folder: str, config: ModelConfig, tokenizer: Tokenizer, padding_seconds: float):
        """Weights of `folder`, published ones included. padding_seconds: silence after each utterance.

        Raises UserError when there are no such weights.
        """
        model = _Offline(config)
        loaded = init_from(model, folder, tokenizer=tokenizer)
        missing = {k for k in model.state_dict() if not k.endswith(STREAMING_ONLY)} - set(loaded)
        if missing:
            raise UserError(f"teacher {folder} has no {min(missing)} that fits this model")
        self.model = model.to(own_device()).eval().requires_grad_(False)
        self.padding = round(padding_seconds * SAMPLE_RATE)
        self.blank = config.blank_id

    def frames(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """audio [B, N], lengths [B] in samples -> frames [B, T, D] float32, the padding included."""
        return offline_frames(self.model.encoder, audio, lengths, self.padding)

    @torch.no_grad()
    def predictions(self, frames: Tensor, lengths: Tensor, pieces: Tensor) -> Tensor:
        """Probabilities [B, U, V] of what follows each of pieces [B, U] (<s> first), BLANK and </s> left out."""
        per = self.model.encoder.chunk_samples
        last = (lengths + per - 1) // per - 1
        logits = self.model.decoder.offline_logits(frames, last, pieces).float()
        logits[..., :4] = -torch.inf
        return logits.softmax(-1)
