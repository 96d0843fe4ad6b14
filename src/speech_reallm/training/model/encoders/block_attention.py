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

from ..layers.attention import MASKED, SelfAttention
from ..layers.fused import attend_scaled
from ..layers.rotary import Rotation, rotary, rotate

# chunks whose past is computed together in forward(): more means larger matrix products, and more masked work
GROUP = 4


def select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """x [B, ...] at places `index` [B, n] of dimension `dim`; places differ from row to row of the batch."""
    if torch.onnx.is_in_onnx_export() and int(x.shape[0]) == 1:  # a plain copy, for one stream
        return x.index_select(dim, index[0])
    shape = [len(index), *([1] * (x.dim() - 1))]
    shape[dim] = index.shape[1]
    sizes = list(x.shape)
    sizes[dim] = -1
    return x.gather(dim, index.reshape(shape).expand(sizes))


def write_ring(ring: Tensor, new: Tensor, slot: Tensor) -> Tensor:
    """A copy of `ring` with `new` at `slot` [B]. Their shapes differ in one dimension, that of the slots."""
    dim = next((i for i, (a, b) in enumerate(zip(ring.shape, new.shape, strict=True)) if a != b), None)
    if dim is None:
        return new
    if not ring.shape[dim]:
        return ring
    size = new.shape[dim]
    index = slot[:, None] * size + torch.arange(size, device=slot.device)
    shape = [len(slot), *([1] * (ring.dim() - 1))]
    shape[dim] = size
    return ring.scatter(dim, index.reshape(shape).expand(new.shape), new)


def blocks_of(x: Tensor, right: int) -> Tensor:
    """[B, C + right, F, D] -> [B, C, (right + 1) * F, D]"""
    count = x.shape[1] - right
    return torch.cat([x[:, r : r + count] for r in range(right + 1)], 2)


class BlockAttention(SelfAttention):
    """Attention of blocks."""

    def forward(self, x: Tensor, final: bool = False) -> Tensor:
        """x [B, C, (R + 1) F, D] (normalised blocks) -> the same shape; with `final` the chunks alone, [B, C, F, D]."""
        left = self.past_chunks
        batch, chunks, size, _ = x.shape
        group = min(GROUP, chunks)
        many = -(-chunks // group)
        short, rows = many * group - chunks, batch * many
        index = torch.arange(chunks, device=x.device)[:, None] * self.frames_per_chunk + torch.arange(
            size, device=x.device
        )
        q, k, v = self._split(x)
        cos, sin = rotary(index, self.rotary_dims)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        q = q[:, :, : self.frames_per_chunk] if final else q

        def blocks(t: Tensor) -> Tensor:  # -> [rows, H, group, T, d]
            t = F.pad(t.flatten(3), (0, 0, 0, 0, 0, short)).reshape(
                rows, group, t.shape[2], self.heads, self.head_dim
            )
            return t.permute(0, 3, 1, 2, 4)

        def pasts(
            t: Tensor,
        ) -> Tensor:  # -> [rows, H, (left + group - 1) F, d], of the chunks before each of a group
            t = t[:, : chunks - 1 or 1, : self.frames_per_chunk].flatten(3).flatten(1, 2)
            reach = (left + group - 1) * self.frames_per_chunk
            t = F.pad(
                t,
                (
                    0,
                    0,
                    left * self.frames_per_chunk,
                    (many * group - 1) * self.frames_per_chunk - t.shape[1],
                ),
            )
            t = t.unfold(1, reach, group * self.frames_per_chunk).transpose(2, 3)
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
        left = self.past_chunks
        key = torch.arange(left + group - 1, device=device)[None, None, :]
        absolute = torch.arange(many, device=device)[:, None, None] * group + key - left
        seen = (key >= query) & (key < query + left) & (absolute >= 0) & (absolute < chunks)
        mask = torch.where(seen, 0.0, MASKED).to(like.dtype).repeat_interleave(self.frames_per_chunk, 2)
        return mask.repeat(batch, 1, 1)[:, None, :, None]

    def init_state(self, batch: int) -> dict[str, Tensor]:
        """Keys (rotated) and values [B, H, left F, d] of the last `left` chunks that are final.

        Rings: step() returns what is to be written into them.
        """
        past = self.past_chunks * self.frames_per_chunk
        return {
            "k": torch.zeros(batch, self.heads, past, self.head_dim),
            "v": torch.zeros(batch, self.heads, past, self.head_dim),
        }

    def step(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation,
        chunk: Tensor,
        state: dict[str, Tensor],
        final: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A block x [B, N F, D] in which `chunk` [B, F] says which frames are those of the chunk to be final.

        mask: additive, [B, 1, 1, (left + N) F], in the order of the rings. Returns [B, N F, D], with `final` [B, F, D],
        and keys and values [B, H, F, d] of the chunk, to be written into the rings.
        """
        # reshaped with sizes that are known: ONNX would compute others anew in every layer
        size, heads, d = int(x.shape[1]), self.heads, self.head_dim
        # scaled by a vector, which export merges into the product
        factors = torch.cat((x.new_full((self.dim,), d**-0.5), x.new_ones(2 * self.dim)))
        both, v = (self.qkv(x) * factors).split((2 * self.dim, self.dim), -1)
        q, k = rotation(both).split(self.dim, -1)
        k, v = (t.reshape(-1, size, heads, d).transpose(1, 2) for t in (k, v))
        new = {"k": select(k, 2, chunk), "v": select(v, 2, chunk)}
        if final:
            q = select(q, 1, chunk)
        k, v = torch.cat((state["k"], k), 2), torch.cat((state["v"], v), 2)
        return self.out(attend_scaled(q, k, v, mask, heads)), new
