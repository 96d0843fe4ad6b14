"""A decoder whose past is text alone and whose layers attend to the encoder's frames of the last chunks.

The paper has no such decoder: there a chunk reaches the decoder as one embedding. Cross-attention over a window that
    moves
with the stream costs constant memory, and a published attention decoder becomes a streaming one without loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....engine.ring import sink_ring_slot
from ....errors import UserError
from ....tokenizer import START
from ...config import ModelConfig
from ..encoders.block_attention import write_ring
from ..layers.attention import MASKED
from ..layers.rotary import Rotation, rotary
from . import Decoder, DecoderState, Path, Update
from .llama import Block, LlamaStack, Memory, cache_of, write_past

# the count of chunks since the last piece goes no further than this
MAX_CHUNKS_SINCE_PIECE = 11
# model.blank_bias holds for BLANK up to this many chunks after a piece; from then on it is decided without
BLANK_BIAS_CHUNKS = 2
# steps: the attention sink seems to be at most so far away, however long the stream. No training sequence has as many
# pieces, so forward() does without; from some thousands on words are lost
SINK_DISTANCE = 512


class CrossAttentionDecoder(LlamaStack, Decoder):
    """A step takes the last piece, the chunks since it, and the current embedding. See Decoder.

    Only a step that emitted a piece is committed: BLANK adds to the count of chunks and leaves the past alone. So an
    answer depends on the text and the chunk, and not on the path that led there.
    """

    path_independent = True
    zero_speech_at_start = True

    def __init__(self, config: ModelConfig, frame_dim: int, frames_per_chunk: int):
        """frame_dim, frames_per_chunk: of the encoder. Raises UserError for settings that do not go together."""
        decoder = config.decoder
        if decoder.window < 3:
            raise UserError("decoder.window must be at least 3 for a cross-attending decoder")
        chunks = decoder.cross_attention_chunks
        super().__init__(decoder, config.vocab_size, self.make_block(config, frame_dim, frames_per_chunk))
        self.chunks, self.frame_dim, self.frames_per_chunk = chunks, frame_dim, frames_per_chunk
        self.blank_id, self.blank_bias = config.blank_id, config.blank_bias
        # where in the frames the last piece ended
        self.chunks_since_piece = nn.Embedding.from_pretrained(
            torch.zeros(MAX_CHUNKS_SINCE_PIECE + 1, self.dim), freeze=False
        )

    def make_block(self, config: ModelConfig, frame_dim: int, frames_per_chunk: int) -> Callable[[], Block]:
        """What makes a layer."""
        decoder, chunks = config.decoder, config.decoder.cross_attention_chunks
        attention = partial(CrossAttention, decoder.dim, decoder.heads, frame_dim, frames_per_chunk, chunks)
        return partial(Block, decoder, attention)

    @property
    def cross_heads(self) -> int:
        """Heads of the keys and values of the frames."""
        return self.config.heads

    def _input(self, embedding: Tensor, piece: Tensor, since_piece: Tensor) -> Tensor:
        """embedding [..., W], piece and since_piece [...] -> [..., W]"""
        count = self.chunks_since_piece(since_piece.clamp(max=MAX_CHUNKS_SINCE_PIECE))
        return embedding + self.embed(piece) + count

    def forward(self, speech: Tensor, frames: Tensor, path: Path) -> Tensor:
        steps = torch.arange(path.pieces.shape[1], device=path.pieces.device)
        is_piece = path.pieces >= 0
        last = torch.where(is_piece, steps, -1).cummax(1).values
        piece = torch.where(last >= 0, path.pieces.gather(1, last.clamp(min=0)), START)
        chunk = path.chunks.cummax(1).values
        since_piece = chunk - torch.where(last >= 0, chunk.gather(1, last.clamp(min=0)), -1)
        position = is_piece.cumsum(1)
        emits = nn.functional.pad(is_piece[:, 1:], (0, 1))
        embedding = speech.gather(1, chunk[..., None].expand(-1, -1, speech.shape[-1]))
        x = self._input(embedding, piece, since_piece)
        return self.logits(
            x, position, past_mask(position, emits, self.window), Memory(frames=frames, chunk=chunk)
        )

    def offline_logits(self, frames: Tensor, chunk: Tensor, pieces: Tensor) -> Tensor:
        """Logits [B, U, V] of what follows each of pieces [B, U], <s> first, as a published offline decoder has them.

        frames [B, C * F, E]: all of the audio. chunk [B]: index of its last chunk. No embeddings and no count of
        chunks.
        """
        position = torch.arange(pieces.shape[1], device=pieces.device).expand_as(pieces)
        emits = torch.ones_like(pieces, dtype=torch.bool)
        memory = Memory(frames=frames, chunk=chunk[:, None].expand_as(pieces))
        return self.logits(self.embed(pieces), position, past_mask(position, emits, self.window), memory)

    def init_cross(self, batch: int) -> dict[str, Tensor]:
        """Rings of the frames of the last N chunks: "I.k" [B, H, d, N * F] and "I.v" [B, H, N * F, d]."""
        heads, d, size = self.cross_heads, self.head_dim, self.chunks * self.frames_per_chunk
        return {
            f"{i}.{name}": torch.zeros(batch, heads, *((d, size) if name == "k" else (size, d)))
            for i in range(len(self.blocks))
            for name in "kv"
        }

    def init_state(self, batch: int) -> DecoderState:
        return {
            "embedding": torch.zeros(batch, self.dim),
            "piece": torch.full((batch,), START),
            "position": torch.zeros(batch, dtype=torch.int64),
            **self.init_cache(batch),
            "chunk": torch.zeros(batch, dtype=torch.int64),
            # chunks since the last piece, by its name in the graph
            "waited": torch.zeros(batch, dtype=torch.int64),
            **{f"cross.{name}": ring for name, ring in self.init_cross(batch).items()},
        }

    def frame_outputs(self, frames: Tensor) -> dict[str, Tensor]:
        # one product for all layers
        layers = {f"{i}.{n}": getattr(b.cross_attention, n) for i, b in enumerate(self.blocks) for n in "kv"}
        heads = self.config.heads
        made = F.linear(frames, torch.cat([layer.weight for layer in layers.values()]))
        made = made.reshape(-1, frames.shape[1], len(layers) * heads, self.head_dim).transpose(1, 2)
        parts = dict(zip(layers, made.split(heads, 1), strict=True))
        return {f"cross.{n}": part.transpose(2, 3) if n.endswith("k") else part for n, part in parts.items()}

    def next_chunk(
        self, state: DecoderState, rows: Tensor, chunk: Tensor, embedding: Tensor, frames: Tensor
    ) -> None:
        state["embedding"][rows] = embedding
        state["chunk"][rows] = chunk
        state["waited"][rows] += 1
        for name, value in self.frame_outputs(frames).items():
            state[name][rows] = write_ring(state[name][rows], value.float(), chunk % self.chunks)

    def step(self, state: DecoderState) -> tuple[Tensor, Update]:
        x = self._input(state["embedding"], state["piece"], state["waited"])
        # the attention sink is at most SINK_DISTANCE steps away: its key is rotated by what is beyond
        beyond = (state["position"] - SINK_DISTANCE).clamp(min=0)
        cos, sin = rotary(beyond[:, None], self.rotary_dims, self.config.rope_theta)
        forward = Rotation(cos, sin, self.head_dim)
        cross = {name.removeprefix("cross."): v for name, v in state.items() if name.startswith("cross.")}
        logits, new = self.step_logits(x, state["position"], cache_of(state), forward, cross, state["chunk"])
        if self.blank_bias:
            blank = torch.zeros(logits.shape[-1], device=logits.device)
            blank[self.blank_id] = self.blank_bias
            logits = logits + (state["waited"] <= BLANK_BIAS_CHUNKS).to(logits.dtype)[:, None] * blank
        return torch.log_softmax(logits.float(), -1), new

    def commit(self, state: DecoderState, rows: Tensor, piece: Tensor, update: Update) -> None:
        emitted = piece != self.blank_id
        rows, piece = rows[emitted], piece[emitted]
        write_past(state, rows, sink_ring_slot(state["position"][rows], self.window - 1), update)
        state["piece"][rows] = piece
        state["waited"][rows] = 0

    def graph_inputs(self, batch: int = 1) -> DecoderState:
        return self.init_state(batch)

    def describe(self) -> dict[str, Any]:
        return {"frame_chunks": self.chunks}


def past_mask(position: Tensor, emits: Tensor, window: int) -> Tensor:
    """Additive mask [B, 1, T, T]: a position attends to itself and to steps that emitted a piece.

    Of those the first and the last ones that the window has room for, as sink_ring_slot() keeps them. position [B, T]:
    pieces emitted before. emits [B, T] bool: whether a piece is emitted there.
    """
    steps = torch.arange(position.shape[1], device=position.device)
    earlier = steps[:, None] > steps[None]
    near = (position[:, None, :] > position[:, :, None] - window + 1) | (position[:, None, :] == 0)
    attended = (earlier & near & emits[:, None, :]) | (steps[:, None] == steps[None])
    return torch.where(attended, 0.0, MASKED).unsqueeze(1)


class CrossAttention(nn.Module):
    """Multi-head attention to the encoder's frames, each marked with a learned vector for the age of its chunk."""

    def __init__(self, dim: int, heads: int, frame_dim: int, frames_per_chunk: int, chunks: int):
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.frames_per_chunk, self.chunks = frames_per_chunk, chunks
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(frame_dim, dim, bias=False)
        self.v = nn.Linear(frame_dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.chunk_age = nn.Parameter(torch.zeros(chunks, frame_dim))

    def _split(self, x: Tensor) -> Tensor:
        """[..., T, D] -> [..., H, T, d]"""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(-2, -3)

    def forward(self, x: Tensor, frames: Tensor, chunk: Tensor) -> Tensor:
        """x [B, T, D], frames [B, C * F, E], chunk [B, T] -> [B, T, D]

        An age adds the same to the scores and values of all frames of a chunk, so it is computed once a chunk.
        """
        count = frames.shape[1] // self.frames_per_chunk
        q = self._split(self.q(x)) * self.head_dim**-0.5
        k, v = self._split(self.k(frames)), self._split(self.v(frames))
        age_k, age_v = self._split(self.k(self.chunk_age)), self._split(self.v(self.chunk_age))
        by_chunk = self.by_chunk(torch.matmul(q, age_k.transpose(-1, -2)).float(), chunk, count)
        scores = torch.matmul(q, k.transpose(-1, -2)).unflatten(-1, (count, self.frames_per_chunk))
        weights = torch.softmax((scores + by_chunk.unsqueeze(-1)).flatten(-2), -1).to(v.dtype)
        y = torch.matmul(weights, v)
        y = y + torch.matmul(self.by_age(weights, chunk, count).to(v.dtype), age_v)
        return self.out(y.transpose(1, 2).flatten(2))

    def by_chunk(self, scores: Tensor, chunk: Tensor, count: int) -> Tensor:
        """Scores of each age [B, H, T, N] at chunk [B, T] -> of each of `count` chunks [B, H, T, C], others masked."""
        age = chunk[:, :, None] - torch.arange(count, device=chunk.device)
        hidden = torch.where((age >= 0) & (age < self.chunks), 0.0, MASKED).unsqueeze(1)
        index = age.clamp(0, self.chunks - 1).unsqueeze(1).expand(-1, self.heads, -1, -1)
        return scores.gather(-1, index) + hidden

    def by_age(self, weights: Tensor, chunk: Tensor, count: int) -> Tensor:
        """Weights of all frames [B, H, T, C * F] at chunk [B, T] -> summed by the age of their chunk [B, H, T, N]."""
        mass = weights.unflatten(-1, (count, self.frames_per_chunk)).sum(-1)
        back = chunk[:, :, None] - torch.arange(self.chunks, device=chunk.device)
        index = back.clamp(0, count - 1).unsqueeze(1).expand(-1, self.heads, -1, -1)
        return mass.gather(-1, index) * ((back >= 0) & (back < count)).unsqueeze(1)

    def ages(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """What the steps of all layers at chunk [B] share: which age the frames in the rings have, one-hot
        [B, 1, N, N * F], and an additive mask [B, 1, 1, N] over ages that nothing was written of yet.
        """
        slot = torch.arange(self.chunks, device=chunk.device).repeat_interleave(self.frames_per_chunk)
        age = torch.remainder(chunk[:, None] - slot, self.chunks)[:, None]
        ages = torch.arange(self.chunks, device=chunk.device)
        one_hot = (age == ages[:, None]).to(self.chunk_age.dtype)
        return one_hot[:, None], torch.where(ages <= chunk[:, None], 0.0, MASKED)[:, None, None]

    def step(self, x: Tensor, k: Tensor, v: Tensor, ages: tuple[Tensor, Tensor]) -> Tensor:
        """x [B, 1, D], rings of keys [B, H, d, N * F] and values [B, H, N * F, d] (chunk c: slot c % N) -> [B, 1, D]"""
        heads, d = self.heads, self.head_dim
        one_hot, empty = ages
        age_k, age_v = (
            layer(self.chunk_age).reshape(-1, heads, d).transpose(0, 1) for layer in (self.k, self.v)
        )
        # scaled by a vector: see Block.step
        q = (self.q(x) * x.new_full((heads * d,), d**-0.5)).reshape(-1, heads, 1, d)
        # an age adds the same to the scores and the values of all its frames: products, of which there are few
        by_age = torch.matmul(torch.matmul(q, age_k.transpose(1, 2)) + empty, one_hot)
        weights = torch.softmax(torch.matmul(q, k) + by_age, -1)
        mass = torch.matmul(weights, one_hot.transpose(2, 3))
        y = torch.matmul(weights, v) + torch.matmul(mass, age_v)
        return self.out(y.reshape(-1, 1, heads * d))
