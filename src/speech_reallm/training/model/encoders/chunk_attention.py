"""Chunked self-attention with a bounded past and an optional chunk of look-ahead.

A query in chunk c attends to chunks c - left_chunks ... c + lookahead, all frames of each.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..layers.attention import GROUP, MASKED, SelfAttention, attend
from ..layers.rotary import Rotation, rotary, rotary_table, rotate


class ChunkAttention(SelfAttention):
    """Chunks of queries, each with the chunks before it and, with look-ahead, one after it."""

    def __init__(
        self,
        dim: int,
        heads: int,
        frames_per_chunk: int,
        left_chunks: int | None,
        lookahead: int = 0,
        rotary_fraction: float = 0.9,
    ):
        super().__init__(dim, heads, frames_per_chunk, left_chunks, rotary_fraction)
        self.lookahead = lookahead

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, F, D] (normalised input) -> [B, C - lookahead, F, D]."""
        batch, chunks, frames, _ = x.shape
        out_chunks = chunks - self.lookahead
        group = min(GROUP, out_chunks)
        blocks = -(-out_chunks // group)
        left = self.past_chunks
        window = left + group + self.lookahead
        q, k, v = self._split(x.flatten(1, 2))
        cos, sin = rotary_table(chunks * frames, self.rotary_dims, x.device)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        back = max(0, blocks * group + self.lookahead - chunks) * frames

        def windows(t: Tensor) -> Tensor:  # -> [B * blocks, window * F, H, d]
            t = F.pad(t.flatten(2), (0, 0, left * frames, back))
            t = t.unfold(1, window * frames, group * frames).transpose(2, 3)
            return t.reshape(batch * blocks, window * frames, self.heads, self.head_dim)

        q = F.pad(q[:, : out_chunks * frames].flatten(2), (0, 0, 0, (blocks * group - out_chunks) * frames))
        q = q.reshape(batch * blocks, group * frames, self.heads, self.head_dim)
        mask = _mask(batch, chunks, group, (left, self.lookahead, frames), x.device)
        y = self._attend(q, windows(k), windows(v), mask)
        return y.reshape(batch, blocks * group, frames, self.dim)[:, :out_chunks]

    def init_state(self, batch: int) -> dict[str, Tensor]:
        """Keys (rotated) and values of the last left + lookahead chunks; the queries (rotated) that wait."""
        past = (self.past_chunks + self.lookahead) * self.frames_per_chunk
        state = {"k": torch.zeros(batch, past, self.dim), "v": torch.zeros(batch, past, self.dim)}
        if self.lookahead:
            state["q"] = torch.zeros(batch, self.frames_per_chunk, self.dim)
        return state

    def rotation(self, index: Tensor) -> Rotation:
        """The rotation of the frames of chunk `index` [B]; layers at the same chunk share it."""
        frame = torch.arange(self.frames_per_chunk, device=index.device)
        cos, sin = rotary(index[:, None] * self.frames_per_chunk + frame, self.rotary_dims)
        return Rotation(cos, sin, self.head_dim)

    def step(
        self, x: Tensor, index: Tensor, rotation: Rotation, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One chunk. x [B, F, D] is chunk `index` [B] (negative: not part of the stream, never attended to).

        Returns the output [B, F, D] of chunk index - lookahead, and the new state.
        """
        left = self.past_chunks
        # reshaped with sizes that are known: ONNX would compute others anew in every layer
        heads, past = (self.heads, self.head_dim), (left + self.lookahead) * self.frames_per_chunk
        both, v = self.qkv(x).split((2 * self.dim, self.dim), -1)
        q, k = rotation(both).split(self.dim, -1)
        k, v = torch.cat((state["k"], k), 1), torch.cat((state["v"], v), 1)
        new = {"k": k[:, self.frames_per_chunk :], "v": v[:, self.frames_per_chunk :]}
        if self.lookahead:
            new["q"], q = q, state["q"]
        span = left + self.lookahead + 1
        chunk = index[:, None] - (span - 1) + torch.arange(span, device=x.device)[None]
        mask = torch.where(chunk >= 0, 0.0, MASKED).repeat_interleave(self.frames_per_chunk, 1)[
            :, None, None, :
        ]
        q = q.reshape(-1, self.frames_per_chunk, *heads)
        k, v = (t.reshape(-1, past + self.frames_per_chunk, *heads) for t in (k, v))
        y = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        return self.out(y.transpose(1, 2).reshape(-1, self.frames_per_chunk, self.dim)), new


@lru_cache(maxsize=2)
def _mask(batch: int, chunks: int, group: int, reach: tuple[int, int, int], device: torch.device) -> Tensor:
    """Additive mask [batch * blocks, 1, group * F, window * F], made once for all layers of a pass.

    chunks: of the input; a block is `group` of those that come out. reach: chunks of the past, of look-ahead, frames F
    of a chunk.
    """
    left, lookahead, frames = reach
    blocks = -(-(chunks - lookahead) // group)
    query = torch.arange(group, device=device)[None, :, None]
    key = torch.arange(left + group + lookahead, device=device)[None, None, :]
    absolute = torch.arange(blocks, device=device)[:, None, None] * group + key - left
    seen = (key >= query) & (key <= query + left + lookahead) & (absolute >= 0) & (absolute < chunks)
    mask = torch.where(seen, 0.0, MASKED).repeat_interleave(frames, 1).repeat_interleave(frames, 2)
    return mask.repeat(batch, 1, 1).unsqueeze(1)
