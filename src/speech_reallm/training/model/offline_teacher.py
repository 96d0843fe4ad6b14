"""An offline recogniser of the same architecture as teacher: it hears all of an utterance, without noise, first.

The student learns its frames and, where a piece is written, its opinion of what that piece may be: soft labels say
more than the one right piece, and what the teacher has learnt of many voices is not forgotten on a few.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...tokenizer import Tokenizer
from ..checkpoint import init_from
from ..config import SAMPLE_RATE, ModelConfig
from ..data.batches import pad_to_chunks
from ..device import own_device
from .decoders.cross_attention import Reading
from .decoders.llama import LlamaDecoder
from .encoders import build_encoder

# chunks that the teacher's decoder may read and pieces that it remembers: whole utterances
CHUNKS = 256
PIECES = 1024


@torch.no_grad()
def offline_frames(encoder: nn.Module, audio: Tensor, lengths: Tensor, tail: int) -> Tensor:
    """Frames [B, T, D] float32 of a full-context encoder that hears `tail` samples of silence after each utterance.

    audio [B, N], lengths [B] in samples. Without the tail it would mark how near the end is, which no streaming encoder
    can know.
    """
    heard = pad_to_chunks(nn.functional.pad(audio, (0, tail)), encoder.chunk_samples, 0)
    return encoder(heard, lengths + tail).float()


class _Offline(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        encoder = config.encoder.offline()
        self.encoder = build_encoder(encoder, config.chunk_ms)
        decoder = dataclasses.replace(config.decoder, frame_chunks=CHUNKS, window=PIECES, dropout=0.0)
        self.decoder = LlamaDecoder(
            decoder, config.vocab_size, self.encoder.dim, self.encoder.frames_per_chunk
        )


class OfflineTeacher:
    """Frozen; not a module, so that it is neither trained nor saved with the student."""

    def __init__(self, folder: str, config: ModelConfig, tokenizer: Tokenizer, tail: float):
        """Weights of `folder`, published ones included. tail: seconds of silence that it hears after each utterance.

        Raises UserError when there are no such weights.
        """
        model = _Offline(config)
        loaded = init_from(model, folder, tokenizer=tokenizer)
        missing = {k for k in model.state_dict() if not k.endswith(".age")} - set(loaded)
        if missing:
            raise UserError(f"teacher {folder} has no {min(missing)} that fits this model")
        self.model = model.to(own_device()).eval().requires_grad_(False)
        self.tail = round(tail * SAMPLE_RATE)
        self.blank = config.blank_id

    @torch.no_grad()
    def mix_into(self, decoder: LlamaDecoder, share: float) -> None:
        """Move the decoder's weights towards the teacher's, by this share of the way; what is new in it stays."""
        theirs = self.model.decoder.state_dict()
        for name, mine in decoder.state_dict().items():
            if not name.endswith(".age"):
                mine.lerp_(theirs[name].to(mine.device), share)

    def frames(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """audio [B, N], lengths [B] in samples -> frames [B, T, D] float32, chunks of the utterance and of the tail."""
        return offline_frames(self.model.encoder, audio, lengths, self.tail)

    @torch.no_grad()
    def answers(self, frames: Tensor, lengths: Tensor, pieces: Tensor) -> Tensor:
        """Probabilities [B, U, V] of what follows each of pieces [B, U] (<s> first), BLANK and </s> left out."""
        per = self.model.encoder.chunk_samples
        last = (lengths + per - 1) // per - 1
        steps = torch.arange(pieces.shape[1], device=pieces.device).expand_as(pieces)
        reading = Reading(
            frames=frames,
            chunk=last[:, None].expand_as(pieces),
            position=steps,
            written=torch.ones_like(pieces, dtype=torch.bool),
        )
        logits = self.model.decoder(self.model.decoder.embed(pieces), reading).float()
        logits[..., :4] = -torch.inf
        return logits.softmax(-1)
