"""A decoder layer's own look at the encoder's frames: attention to those of the last chunks.

The paper has none: there a chunk reaches the decoder as one embedding. Reading the frames is cross-attention by its
usual name, over a window that moves with the stream, so that an endless one costs constant memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers.attention import MASKED


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a reading decoder needs besides its input, for T positions of B rows.

    frames: of the encoder, [B, C * F, E]. chunk: the last one heard, [B, T]. position: pieces written before, [B, T].
    written: whether a piece is written there, [B, T] bool; other positions, which say BLANK, leave no trace.
    """

    frames: Tensor
    chunk: Tensor
    position: Tensor
    written: Tensor

    def past(self, window: int) -> Tensor:
        """Additive mask [B, 1, T, T]: a position sees itself and where pieces were written, the first and the last ones
        that the window has room for.
        """
        steps = torch.arange(self.chunk.shape[1], device=self.chunk.device)
        earlier = steps[:, None] > steps[None]
        # as ring_slot() keeps them: the first in a slot of its own
        near = (self.position[:, None, :] > self.position[:, :, None] - window + 1) | (
            self.position[:, None, :] == 0
        )
        seen = (earlier & near & self.written[:, None, :]) | (steps[:, None] == steps[None])
        return torch.where(seen, 0.0, MASKED).unsqueeze(1)


class FrameAttention(nn.Module):
    """Multi-head attention to frames, each marked with the age of its chunk (a learned vector, zero at first)."""

    def __init__(self, dim: int, heads: int, frame_dim: int, frames_per_chunk: int, chunks: int):
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.frames, self.chunks = frames_per_chunk, chunks
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(frame_dim, dim, bias=False)
        self.v = nn.Linear(frame_dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.age = nn.Parameter(torch.zeros(chunks, frame_dim))

    def _split(self, x: Tensor) -> Tensor:
        """[..., T, D] -> [..., H, T, d]"""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(-2, -3)

    def forward(self, x: Tensor, frames: Tensor, chunk: Tensor) -> Tensor:
        """x [B, T, D], frames [B, C * F, E], chunk [B, T] -> [B, T, D]

        An age adds the same to the scores and values of all frames of a chunk, so it is reckoned with once a chunk.
        """
        count = frames.shape[1] // self.frames
        q = self._split(self.q(x)) * self.head_dim**-0.5
        k, v = self._split(self.k(frames)), self._split(self.v(frames))
        age_k, age_v = self._split(self.k(self.age)), self._split(self.v(self.age))
        age = chunk[:, :, None] - torch.arange(count, device=x.device)
        hidden = torch.where((age >= 0) & (age < self.chunks), 0.0, MASKED).unsqueeze(1)
        index = age.clamp(0, self.chunks - 1).unsqueeze(1).expand(-1, self.heads, -1, -1)
        by_chunk = torch.matmul(q, age_k.transpose(-1, -2)).float().gather(-1, index) + hidden
        scores = torch.matmul(q, k.transpose(-1, -2)).unflatten(-1, (count, self.frames))
        weights = torch.softmax((scores + by_chunk.unsqueeze(-1)).flatten(-2), -1).to(v.dtype)
        y = torch.matmul(weights, v)
        mass = weights.unflatten(-1, (count, self.frames)).sum(-1)
        back = chunk[:, :, None] - torch.arange(self.chunks, device=x.device)
        index = back.clamp(0, count - 1).unsqueeze(1).expand(-1, self.heads, -1, -1)
        by_age = mass.gather(-1, index) * ((back >= 0) & (back < count)).unsqueeze(1)
        y = y + torch.matmul(by_age.to(v.dtype), age_v)
        return self.out(y.transpose(1, 2).flatten(2))

    def ages(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """What the steps of all layers at chunk [B] share: which age the frames in the rings have, one-hot
        [B, 1, N, N * F], and an additive mask [B, 1, 1, N * F] over slots that nothing was written into yet.
        """
        slot = torch.arange(self.chunks, device=chunk.device).repeat_interleave(self.frames)
        age = torch.remainder(chunk[:, None] - slot, self.chunks)[:, None]
        one_hot = (age == torch.arange(self.chunks, device=chunk.device)[:, None]).to(self.age.dtype)
        return one_hot[:, None], torch.where(slot <= chunk[:, None], 0.0, MASKED)[:, None, None]

    def step(self, x: Tensor, k: Tensor, v: Tensor, ages: tuple[Tensor, Tensor]) -> Tensor:
        """x [B, 1, D], rings of keys [B, H, d, N * F] and values [B, H, N * F, d] (chunk c: slot c % N) -> [B, 1, D]"""
        heads, d = self.heads, self.head_dim
        one_hot, empty = ages
        age_k, age_v = (layer(self.age).reshape(-1, heads, d).transpose(0, 1) for layer in (self.k, self.v))
        q = self.q(x).reshape(-1, heads, 1, d) * d**-0.5
        # an age adds the same to the scores and the values of all its frames: products, of which there are few
        by_age = torch.matmul(torch.matmul(q, age_k.transpose(1, 2)), one_hot)
        weights = torch.softmax(torch.matmul(q, k) + by_age + empty, -1)
        mass = torch.matmul(weights, one_hot.transpose(2, 3))
        y = torch.matmul(weights, v) + torch.matmul(mass, age_v)
        return self.out(y.reshape(-1, 1, heads * d))
