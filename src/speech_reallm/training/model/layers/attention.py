"""Chunked self-attention with a bounded past and an optional chunk of look-ahead.

A query in chunk c attends to chunks c - left_chunks ... c + lookahead, all frames of each. Positions are
rotary (Su et al., arXiv 2104.09864), hence relative: an endless stream needs no position counter.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -1e9  # finite, so that a row with nothing to attend to stays finite
# chunks of queries computed together in forward(): more means larger matrix products, and more masked work
GROUP = 4


def rotary(position: Tensor, dims: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """cos and sin [..., dims / 2] float32 for integer positions [...].

    Angles are reduced in double precision: an endless stream counts positions without bound.
    """
    freqs = theta ** (-torch.arange(0, dims, 2, dtype=torch.float64, device=position.device) / dims)
    turns = position.double().unsqueeze(-1) * (freqs / (2 * torch.pi))
    angles = ((turns - turns.floor()) * (2 * torch.pi)).float()
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first r dims of each head, i with i + r / 2. x [..., T, H, d]; cos, sin [..., T, r / 2]."""
    half = cos.shape[-1]
    cos, sin = cos.unsqueeze(-2).to(x.dtype), sin.unsqueeze(-2).to(x.dtype)
    a, b = x[..., :half], x[..., half : 2 * half]
    turned = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat(turned if 2 * half == x.shape[-1] else (*turned, x[..., 2 * half :]), dim=-1)


class Turn:
    """rotate() for one position or chunk at a time, in few operations: what a step costs is mostly their number.

    cos, sin [B, T, r / 2] as rotary() gives them, for heads of `dims` dimensions.
    """

    def __init__(self, cos: Tensor, sin: Tensor, dims: int):
        self.dims, half = dims, int(cos.shape[-1])
        # ONNX Runtime has an operation for it, which takes the angles of one stream
        self.fused = torch.onnx.is_in_onnx_export() and int(cos.shape[0]) == 1
        if self.fused:
            self.cos, self.sin = (t.reshape(-1, half) for t in (cos, sin))
            self.rotated = 0 if 2 * half == dims else 2 * half
            return
        rest = dims - 2 * half
        self.cos = F.pad(torch.cat((cos, cos), -1), (0, rest), value=1.0).unsqueeze(-2)
        self.sin = F.pad(torch.cat((-sin, sin), -1), (0, rest)).unsqueeze(-2)
        order = [*range(half, 2 * half), *range(half), *range(2 * half, dims)]
        self.order = torch.tensor(order, device=cos.device)

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, T, H * d] -> the same, each head rotated"""
        if self.fused:
            return _FusedRotation.apply(x, self.cos, self.sin, int(x.shape[-1]) // self.dims, self.rotated)
        heads = x.unflatten(-1, (-1, self.dims))
        return (heads * self.cos + heads.index_select(-1, self.order) * self.sin).flatten(-2)


class _FusedRotation(torch.autograd.Function):
    """x [1, T, H * d], cos and sin [T, r / 2], r (0: all of d) -> x rotated; only for graphs."""

    @staticmethod
    def forward(_context: Any, x: Tensor, cos: Tensor, sin: Tensor, heads: int, _size: int) -> Tensor:
        return rotate(x.unflatten(-1, (heads, -1)), cos, sin).flatten(-2)

    @staticmethod
    def symbolic(g: Any, x: Any, cos: Any, sin: Any, heads: int, size: int) -> Any:
        return g.op(
            "com.microsoft::RotaryEmbedding",
            x,
            g.op("Constant", value_t=torch.tensor([0])),
            cos,
            sin,
            num_heads_i=heads,
            rotary_embedding_dim_i=size,
        ).setType(x.type())


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention. q [B, H, Tq, d], k and v [B, H, Tk, d], additive mask -> [B, H, Tq, d]."""
    mask = None if mask is None else mask.to(q.dtype)
    trains = torch.is_grad_enabled() and q.device.type == "cpu"
    if mask is not None and (trains or torch.onnx.is_in_onnx_export()):
        # on a CPU the backward pass of the fused kernel takes twice as long as that of its parts, and in ONNX its scale
        # would be computed anew each time
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3)) + mask
        return torch.matmul(torch.softmax(scores, -1).to(v.dtype), v)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)


class SelfAttention(nn.Module):
    """Multi-head self-attention of frames in chunks: projections inside, no norm, no residual."""

    def __init__(
        self,
        dim: int,
        heads: int,
        frames_per_chunk: int,
        left_chunks: int | None,
        rotary_fraction: float = 0.9,
    ):
        super().__init__()
        self.dim, self.heads, self.head_dim = dim, heads, dim // heads
        self.frames, self.left = frames_per_chunk, left_chunks
        self.rotary_dims = int(self.head_dim * rotary_fraction) // 2 * 2
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[..., D] -> q, k, v, each [..., H, d]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim)).unbind(-3)
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q [B, Tq, H, d], k and v [B, Tk, H, d], additive mask [.., 1, Tq, Tk] -> [B, Tq, D]."""
        y = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        return self.out(y.transpose(1, 2).flatten(2))

    def forward_full(self, x: Tensor, valid: Tensor) -> Tensor:
        """Attention over the whole utterance. x [B, T, D], valid [B, T] bool -> [B, T, D]."""
        q, k, v = self._split(x)
        cos, sin = rotary(torch.arange(x.shape[1], device=x.device), self.rotary_dims)
        mask = torch.where(valid, 0.0, MASKED)[:, None, None, :]
        return self._attend(rotate(q, cos, sin), rotate(k, cos, sin), v, mask)


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
        assert self.left is not None
        batch, chunks, frames, _ = x.shape
        out_chunks = chunks - self.lookahead
        group = min(GROUP, out_chunks)
        blocks = -(-out_chunks // group)
        window = self.left + group + self.lookahead
        q, k, v = self._split(x.flatten(1, 2))
        cos, sin = rotary(torch.arange(chunks * frames, device=x.device), self.rotary_dims)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        back = max(0, blocks * group + self.lookahead - chunks) * frames

        def windows(t: Tensor) -> Tensor:  # -> [B * blocks, window * F, H, d]
            t = F.pad(t.flatten(2), (0, 0, self.left * frames, back))
            t = t.unfold(1, window * frames, group * frames).transpose(2, 3)
            return t.reshape(batch * blocks, window * frames, self.heads, self.head_dim)

        q = F.pad(q[:, : out_chunks * frames].flatten(2), (0, 0, 0, (blocks * group - out_chunks) * frames))
        q = q.reshape(batch * blocks, group * frames, self.heads, self.head_dim)
        y = self._attend(q, windows(k), windows(v), self._mask(batch, chunks, blocks, group, x.device))
        return y.reshape(batch, blocks * group, frames, self.dim)[:, :out_chunks]

    def _mask(self, batch: int, chunks: int, blocks: int, group: int, device: torch.device) -> Tensor:
        """Additive mask [batch * blocks, 1, group * F, window * F]."""
        query = torch.arange(group, device=device)[None, :, None]
        key = torch.arange(self.left + group + self.lookahead, device=device)[None, None, :]
        block = torch.arange(blocks, device=device)[:, None, None]
        absolute = block * group + key - self.left
        reach = self.left + self.lookahead
        seen = (key >= query) & (key <= query + reach) & (absolute >= 0) & (absolute < chunks)
        mask = (
            torch.where(seen, 0.0, MASKED).repeat_interleave(self.frames, 1).repeat_interleave(self.frames, 2)
        )
        return mask.repeat(batch, 1, 1).unsqueeze(1)

    def init_state(self, batch: int) -> dict[str, Tensor]:
        """Keys (rotated) and values of the last left + lookahead chunks; the queries (rotated) that wait."""
        assert self.left is not None
        past = (self.left + self.lookahead) * self.frames
        state = {"k": torch.zeros(batch, past, self.dim), "v": torch.zeros(batch, past, self.dim)}
        if self.lookahead:
            state["q"] = torch.zeros(batch, self.frames, self.dim)
        return state

    def turn(self, index: Tensor) -> Turn:
        """The rotation of the frames of chunk `index` [B]; layers at the same chunk share it."""
        frame = torch.arange(self.frames, device=index.device)
        cos, sin = rotary(index[:, None] * self.frames + frame, self.rotary_dims)
        return Turn(cos, sin, self.head_dim)

    def step(
        self, x: Tensor, index: Tensor, turn: Turn, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One chunk. x [B, F, D] is chunk `index` [B] (negative: not part of the stream, never attended to).

        Returns the output [B, F, D] of chunk index - lookahead, and the new state.
        """
        assert self.left is not None
        # reshaped with sizes that are known: ONNX would compute others anew in every layer
        heads, past = (self.heads, self.head_dim), (self.left + self.lookahead) * self.frames
        both, v = self.qkv(x).split((2 * self.dim, self.dim), -1)
        q, k = turn(both).split(self.dim, -1)
        k, v = torch.cat((state["k"], k), 1), torch.cat((state["v"], v), 1)
        new = {"k": k[:, self.frames :], "v": v[:, self.frames :]}
        if self.lookahead:
            new["q"], q = q, state["q"]
        span = self.left + self.lookahead + 1
        chunk = index[:, None] - (span - 1) + torch.arange(span, device=x.device)[None]
        mask = torch.where(chunk >= 0, 0.0, MASKED).repeat_interleave(self.frames, 1)[:, None, None, :]
        q = q.reshape(-1, self.frames, *heads)
        k, v = (t.reshape(-1, past + self.frames, *heads) for t in (k, v))
        y = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        return self.out(y.transpose(1, 2).reshape(-1, self.frames, self.dim)), new
