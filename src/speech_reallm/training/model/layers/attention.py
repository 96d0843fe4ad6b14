"""Scaled dot-product attention, and self-attention of frames in chunks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .rotary import rotary_table, rotate

MASKED = -1e9  # finite, so that a row with nothing to attend to stays finite
# chunks of queries computed together in forward(): more means larger matrix products, and more masked work
GROUP = 4


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
        self.frames_per_chunk, self.left = frames_per_chunk, left_chunks
        self.rotary_dims = int(self.head_dim * rotary_fraction) // 2 * 2
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    @property
    def past_chunks(self) -> int:
        """Chunks of past that a query attends to; an attention over whole utterances has no such number."""
        assert self.left is not None
        return self.left

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
        cos, sin = rotary_table(x.shape[1], self.rotary_dims, x.device)
        mask = torch.where(valid, 0.0, MASKED)[:, None, None, :]
        return self._attend(rotate(q, cos, sin), rotate(k, cos, sin), v, mask)
