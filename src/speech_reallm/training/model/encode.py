"""Frames of whole utterances from a frozen encoder."""

from __future__ import annotations

from torch import Tensor, nn

from ..device import autocast, device_of
from .encoders import Encoder


def encode_batch(
    encoder: Encoder, audio: Tensor, lengths: Tensor, flush_chunks: int, bf16: bool, delay: int = 0
) -> Tensor:
    """audio [B, N] -> frames [B, (C + flush) * F, D] float32, zeros behind every utterance as at a flush."""
    size = encoder.chunk_samples
    chunks = -(-audio.shape[1] // size) + (
        0 if encoder.config.full_context else flush_chunks + encoder.lookahead_chunks
    )
    where = device_of(encoder)
    audio = nn.functional.pad(audio.to(where), (0, chunks * size - audio.shape[1]))
    with autocast(where, bf16):
        return encoder(audio, lengths.to(where), delay=delay).float()
