"""The ReaLLM model: streaming encoder, stacker, decoder-only LM, BLANK. (Seide et al., Interspeech 2024.)"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .encoder import build_encoder
from .llama import LlamaDecoder
from .stacker import Stacker


@dataclass(kw_only=True, slots=True)
class State:
    """A batch of streams: the encoder's state, the decoder's rings, positions consumed [B] int64."""

    encoder: dict[str, Tensor]
    cache_k: Tensor
    cache_v: Tensor
    position: Tensor


class ReaLLM(nn.Module):
    """`encoder`, `stacker`, `decoder`, and a vector for each label delay."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder, config.chunk_ms)
        self.decoder = LlamaDecoder(config.decoder, config.vocab_size)
        self.stacker = Stacker(self.encoder.frames_per_chunk, self.encoder.dim, self.decoder.dim)
        self.delay = nn.Embedding(max(config.delays) + 1, self.decoder.dim)
        nn.init.normal_(self.delay.weight, std=0.02)

    def embed_speech(self, frames: Tensor, delay: Tensor) -> Tensor:
        """frames [B, C * F, D], delay [B] chunks -> speech embeddings [B, C, decoder width]"""
        return self.stacker(frames) + self.delay(delay)[:, None]

    def mix(self, speech: Tensor, pieces: Tensor, chunks: Tensor) -> Tensor:
        """Decoder input [B, T, W] from speech [B, C, W] and an interleaving (pieces, chunks [B, T], -1: not this)."""
        gathered = speech.gather(1, chunks.clamp(min=0)[..., None].expand(-1, -1, speech.shape[-1]))
        text = self.decoder.embed(pieces.clamp(min=0)).to(gathered.dtype)
        return torch.where((pieces >= 0)[..., None], text, gathered)

    def forward(self, frames: Tensor, delay: Tensor, pieces: Tensor, chunks: Tensor) -> Tensor:
        """Encoder frames [B, C * F, D], delay [B], interleaving [B, T] -> logits [B, T, V]."""
        return self.decoder(self.mix(self.embed_speech(frames, delay), pieces, chunks))

    # -- streaming

    def init_state(self, batch: int) -> State:
        cache_k, cache_v = self.decoder.init_cache(batch)
        return State(
            encoder=self.encoder.init_state(batch),
            cache_k=cache_k,
            cache_v=cache_v,
            position=torch.zeros(batch, dtype=torch.int64),
        )

    def step(self, embedding: Tensor, piece: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """One micro-step: embedding [B, W] where piece [B] is -1, else the piece -> log probs [B, V], new k, new v."""
        x = torch.where((piece >= 0)[:, None], self.decoder.embed(piece.clamp(min=0)), embedding)
        logits, k, v = self.decoder.step(x, state.position, state.cache_k, state.cache_v)
        return torch.log_softmax(logits.float(), -1), k, v

    @torch.no_grad()
    def greedy(self, frames: Tensor, lengths: Tensor, delay: Tensor) -> list[list[int]]:
        """Greedy streaming decoding of a batch from encoder frames, as the runtime does it, for use in training.

        frames [B, C * F, D]; lengths [B] chunks to decode (flush included); delay [B]. Returns the pieces of each row.
        """
        batch = len(frames)
        blank, cap = self.config.blank_id, self.config.max_pieces_per_chunk
        speech = self.embed_speech(frames, delay).float()
        cache_k, cache_v = self.decoder.init_cache(batch)
        state = State(
            encoder={}, cache_k=cache_k, cache_v=cache_v, position=torch.zeros(batch, dtype=torch.int64)
        )
        ring, rows = cache_k.shape[2], torch.arange(batch)
        chunk = torch.zeros(batch, dtype=torch.int64)
        piece = torch.full((batch,), -1)
        said = torch.zeros(batch, dtype=torch.int64)
        result: list[list[int]] = [[] for _ in range(batch)]
        while bool((active := chunk < lengths).any()):
            here = speech[rows, chunk.clamp(max=speech.shape[1] - 1)]
            log_probs, k, v = self.step(here, piece, state)
            live = rows[active]
            slot = state.position[live] % ring
            state.cache_k[live, :, slot] = k[live].float()
            state.cache_v[live, :, slot] = v[live].float()
            state.position[live] += 1
            best = log_probs.argmax(-1)
            best = torch.where(said >= cap, blank, best)
            for row in live.tolist():
                symbol = int(best[row])
                if symbol == blank:
                    chunk[row] += 1
                    piece[row], said[row] = -1, 0
                else:
                    result[row].append(symbol)
                    piece[row] = symbol
                    said[row] += 1
        return result
