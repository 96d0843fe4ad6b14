"""Self-attention in blocks: a chunk, and right context after it that every layer sees. (Emformer, arXiv 2010.10759)

The block of chunk c is the chunks c ... c + R. In every layer all its frames attend to each other and to the chunks
c - left ... c - 1 as they came out of their own blocks. What comes out of the last layer for chunk c is its final
frames; its right context served as such and is computed again, with more after it, in the next block. So an offline
encoder's layers meet what they know, at the cost of computing every frame R + 1 times; look-ahead in the first layers
alone is cheaper and starts much further from the offline encoder. Positions are rotary, hence relative.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..layers.attention import MASKED, SelfAttention, Turn, rotary, rotate

# chunks whose past is computed together in forward(): more means larger matrix products, and more masked work
GROUP = 4


def blocks_of(x: Tensor, right: int) -> Tensor:
    """[B, C + right, F, D] -> [B, C, (right + 1) * F, D]"""
    count = x.shape[1] - right
    return torch.cat([x[:, r : r + count] for r in range(right + 1)], 2)


class BlockAttention(SelfAttention):
    """Attention of blocks."""

    def forward(self, x: Tensor, final: bool = False) -> Tensor:
        """x [B, C, (R + 1) F, D] (normalised blocks) -> the same shape; with `final` the chunks alone, [B, C, F, D]."""
        assert self.left is not None
        batch, chunks, size, _ = x.shape
        group = min(GROUP, chunks)
        many = -(-chunks // group)
        short, rows = many * group - chunks, batch * many
        index = torch.arange(chunks, device=x.device)[:, None] * self.frames + torch.arange(
            size, device=x.device
        )
        q, k, v = self._split(x)
        cos, sin = rotary(index, self.rotary_dims)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        q = q[:, :, : self.frames] if final else q

        def blocks(t: Tensor) -> Tensor:  # -> [rows, H, group, T, d]
            t = F.pad(t.flatten(3), (0, 0, 0, 0, 0, short)).reshape(
                rows, group, t.shape[2], self.heads, self.head_dim
            )
            return t.permute(0, 3, 1, 2, 4)

        def pasts(
            t: Tensor,
        ) -> Tensor:  # -> [rows, H, (left + group - 1) F, d], of the chunks before each of a group
            t = t[:, : chunks - 1 or 1, : self.frames].flatten(3).flatten(1, 2)
            reach = (self.left + group - 1) * self.frames
            t = F.pad(t, (0, 0, self.left * self.frames, (many * group - 1) * self.frames - t.shape[1]))
            t = t.unfold(1, reach, group * self.frames).transpose(2, 3)
            return t.reshape(rows, reach, self.heads, self.head_dim).transpose(1, 2)

        q = blocks(q) * self.head_dim**-0.5
        past = torch.matmul(q.flatten(2, 3), pasts(k).transpose(2, 3)).unflatten(2, (group, -1))
        past = past + self._mask(batch, chunks, many, group, past)
        own = torch.matmul(q, blocks(k).transpose(3, 4))
        weights = torch.softmax(torch.cat((past, own), -1), -1).to(v.dtype)
        past, own = weights.split((past.shape[-1], size), -1)
        y = torch.matmul(past.flatten(2, 3), pasts(v)).unflatten(2, (group, -1)) + torch.matmul(
            own, blocks(v)
        )
        y = y.permute(0, 2, 3, 1, 4).flatten(3)  # [rows, group, T, D]
        return self.out(y.reshape(batch, many * group, -1, self.dim)[:, :chunks])

    def _mask(self, batch: int, chunks: int, many: int, group: int, like: Tensor) -> Tensor:
        """Additive mask [rows, 1, group, 1, (left + group - 1) F] over the past of each chunk of a group."""
        device = like.device
        query = torch.arange(group, device=device)[None, :, None]
        key = torch.arange(self.left + group - 1, device=device)[None, None, :]
        absolute = torch.arange(many, device=device)[:, None, None] * group + key - self.left
        seen = (key >= query) & (key < query + self.left) & (absolute >= 0) & (absolute < chunks)
        mask = torch.where(seen, 0.0, MASKED).to(like.dtype).repeat_interleave(self.frames, 2)
        return mask.repeat(batch, 1, 1)[:, None, :, None]

    def init_state(self, batch: int) -> dict[str, Tensor]:
        """Keys (rotated) and values of the last `left` chunks that are final."""
        assert self.left is not None
        past = self.left * self.frames
        return {"k": torch.zeros(batch, past, self.dim), "v": torch.zeros(batch, past, self.dim)}

    def step(
        self,
        x: Tensor,
        mask: Tensor,
        turn: Turn,
        chunk: Tensor,
        state: dict[str, Tensor],
        final: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A block x [B, N F, D] in which `chunk` [B, F, 1] says which frames are those of the chunk to be final.

        mask: additive, [B, 1, 1, (left + N) F]. Returns [B, N F, D], with `final` [B, F, D], and the new state.
        """
        assert self.left is not None
        # reshaped with sizes that are known: ONNX would compute others anew in every layer
        size, past = x.shape[1], self.left * self.frames
        both, v = self.qkv(x).split((2 * self.dim, self.dim), -1)
        both = turn(both.reshape(-1, size, 2 * self.heads, self.head_dim))
        q, k = both.reshape(-1, size, 2 * self.dim).split(self.dim, -1)
        where = chunk.expand(-1, -1, self.dim)
        before_k, before_v = state["k"], state["v"]
        new = {
            "k": torch.cat((before_k, k.gather(1, where)), 1)[:, self.frames :],
            "v": torch.cat((before_v, v.gather(1, where)), 1)[:, self.frames :],
        }
        k, v = torch.cat((before_k, k), 1), torch.cat((before_v, v), 1)
        if final:
            q, size = q.gather(1, where), self.frames
        q = q.reshape(-1, size, self.heads, self.head_dim).transpose(1, 2) * self.head_dim**-0.5
        k, v = (t.reshape(-1, past + x.shape[1], self.heads, self.head_dim).transpose(1, 2) for t in (k, v))
        weights = torch.softmax(torch.matmul(q, k.transpose(2, 3)) + mask, -1)
        y = torch.matmul(weights, v).transpose(1, 2).reshape(-1, size, self.dim)
        return self.out(y), new
