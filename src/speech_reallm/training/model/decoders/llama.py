"""A stack of Llama layers (Touvron et al., arXiv 2302.13971): RMSNorm, rotary positions, SwiGLU, grouped queries.

Attention is windowed: a position attends to itself and the window - 1 before it, in training and in streaming alike.
The decoders beside this file are such stacks; a layer may attend to the encoder's frames besides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import DecoderConfig
from ..layers.attention import MASKED, attend
from ..layers.fused import add_and_normalise
from ..layers.module_list import ModuleList
from ..layers.norm import RMSNorm
from ..layers.rotary import Rotation, rotary, rotate

if TYPE_CHECKING:
    from .cross_attention import CrossAttention


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What a layer attends to besides the text.

    In training the frames [B, C * F, E] of the whole audio and, for each position, the index of the current chunk
    [B, T]; in streaming a ring of frames [B, N * F, E] and the index of the current chunk [B].
    """

    frames: Tensor
    chunk: Tensor


class Block(nn.Module):
    """Self-attention, attention to the encoder's frames where there is one, feed-forward; pre-norm with residuals."""

    def __init__(self, config: DecoderConfig, cross_attention: Callable[[], CrossAttention] | None = None):
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv
        self.head_dim = config.dim // config.heads
        d, h = config.dim, self.head_dim
        self.norm1 = RMSNorm(d)
        self.q = nn.Linear(d, self.heads * h, bias=False)
        self.k = nn.Linear(d, self.kv_heads * h, bias=False)
        self.v = nn.Linear(d, self.kv_heads * h, bias=False)
        self.out = nn.Linear(self.heads * h, d, bias=False)
        if cross_attention is not None:
            self.norm_cross_attention = RMSNorm(d)
            self.cross_attention = cross_attention()
        self.norm2 = RMSNorm(d)
        self.gate = nn.Linear(d, config.ffn, bias=config.mlp_bias)
        self.up = nn.Linear(d, config.ffn, bias=config.mlp_bias)
        self.down = nn.Linear(config.ffn, d, bias=config.mlp_bias)
        self.dropout = nn.Dropout(config.dropout)

    def _feed_forward(self, x: Tensor) -> Tensor:
        y = self.norm2(x)
        return x + self.dropout(self.down(F.silu(self.gate(y)) * self.up(y)))

    def _feed_forward_step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The same of x + y without dropout, in fewer products; the result is the sum of both."""
        x, normalised = add_and_normalise(x, y, self.norm2)
        bias = torch.cat((self.gate.bias, self.up.bias)) if self.gate.bias is not None else None
        gate, up = F.linear(normalised, torch.cat((self.gate.weight, self.up.weight)), bias).chunk(2, -1)
        return x, self.down(F.silu(gate) * up)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, memory: Memory | None
    ) -> Tensor:
        """x [B, T, D]; mask additive [.., T, T], None for plain causal -> [B, T, D]"""
        y = self.norm1(x)
        q = rotate(self.q(y).unflatten(-1, (self.heads, -1)), cos, sin).transpose(1, 2)
        k = rotate(self.k(y).unflatten(-1, (self.kv_heads, -1)), cos, sin).transpose(1, 2)
        v = self.v(y).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        repeat = self.heads // self.kv_heads
        if repeat > 1:
            k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = attend(q, k, v, mask, causal=mask is None)
        x = x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))
        if memory is not None:
            y = self.cross_attention(self.norm_cross_attention(x), memory.frames, memory.chunk)
            x = x + self.dropout(y)
        return self._feed_forward(x)

    def ages(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """What the steps of all layers at chunk [B] share, see CrossAttention.ages."""
        return self.cross_attention.ages(chunk)

    def next_frames(self, frames: Tensor) -> Tensor:
        """The frames [B, C * F, E] as the next layer takes them: here, as all layers do."""
        return frames

    def _normalised(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """x + y, of which y may be missing, and the same normalised."""
        return (x, self.norm1(x)) if y is None else add_and_normalise(x, y, self.norm1)

    def step(
        self,
        x: Tensor,
        y: Tensor | None,
        rotation: Rotation,
        first: Tensor | None,
        mask: Tensor,
        cache: dict[str, Tensor],
        cross: dict[str, Tensor] | None,
        ages: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """x + y [B, 1, D], mask additive [B, 1, 1, W + 1] -> x, y, what is to be written into the cache

        The output is the sum of the first two, which is taken with the next normalisation. cache: "k" [B, kv, d, W]
        (keys rotated) and "v" [B, kv, W, d]; new are [B, kv, d, 1] and [B, kv, 1, d]. first: [B, kv, d, 1], takes the
        place of the key in the first slot. cross: the rings of CrossAttention.step, with `ages`, where there is one.
        All lies as the products take it, so that nothing is copied.
        """
        heads, kv, d = self.heads, self.kv_heads, self.head_dim
        x, normalised = self._normalised(x, y)
        joined = torch.cat((self.q.weight, self.k.weight, self.v.weight))
        # scaled by a vector, which export merges into the product; a scalar would end in the product with the ring,
        # for which ONNX Runtime then takes a slow path
        factors = torch.cat((x.new_full((heads * d,), d**-0.5), x.new_ones(2 * kv * d)))
        made = (F.linear(normalised, joined) * factors).reshape(-1, heads + 2 * kv, 1, d)
        both, v = made.split((heads + kv, kv), 1)
        q, k = rotation.heads(both).split((heads, kv), 1)
        k = k.reshape(-1, kv, d, 1)
        if kv != heads:  # queries of a group share their key: [B, kv, group, d]
            q = q.reshape(-1, kv, heads // kv, d)
        scores = [torch.matmul(q, cache["k"]), torch.matmul(q, k)]
        if first is not None:
            scores = [torch.matmul(q, first), scores[0][..., 1:], scores[1]]
        weights = torch.softmax(torch.cat(scores, -1) + mask, -1)
        past, own = weights.split((int(weights.shape[-1]) - 1, 1), -1)
        attended = torch.matmul(past, cache["v"]) + own * v
        y = self.out(attended.reshape(-1, 1, heads * d))
        if cross is not None and ages is not None:
            x, normalised = add_and_normalise(x, y, self.norm_cross_attention)
            y = self.cross_attention.step(normalised, cross["k"], cross["v"], ages)
        return *self._feed_forward_step(x, y), {"k": k, "v": v}


class TiedEmbedding(nn.Module):
    """Embeddings of pieces taken from the output layer, so that the matrix is stored once.

    The mean of each row is taken out: published decoders subtract means in their normalisations, ours do not, and
    whatever is written into the residual stream has to have mean zero for both to agree. Has no weights of its own.
    """

    def __init__(self, head: nn.Linear):
        super().__init__()
        # in a tuple, so that the output layer is not registered (and saved) a second time
        self._head = (head,)

    def forward(self, pieces: Tensor) -> Tensor:
        """pieces [...] int64 -> embeddings [..., D]"""
        rows = F.embedding(pieces, self._head[0].weight)
        return rows - rows.mean(-1, keepdim=True)


class LlamaStack(nn.Module):
    """Embeddings of pieces, the layers, and the output layer."""

    def __init__(
        self,
        config: DecoderConfig,
        vocab_size: int,
        block: Callable[[], Block] | None = None,
    ):
        """block: makes a layer; without it, one of text alone."""
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.dim, self.window = config.dim, config.window
        if not config.tie_embeddings:
            self.embed: nn.Module = nn.Embedding(vocab_size, config.dim)
        self.rotary_dims = int(config.dim // config.heads * config.rotary_fraction) // 2 * 2
        self.blocks = ModuleList((block or partial(Block, config))() for _ in range(config.layers))
        self.norm = RMSNorm(config.dim)
        head = nn.Linear(config.dim, vocab_size, bias=False)
        self.head: nn.Module = head
        if config.tie_embeddings:
            self.embed = TiedEmbedding(head)
        self.apply(self._init)

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.dim**-0.5 * 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)

    def logits(
        self,
        x: Tensor,
        position: Tensor | None = None,
        mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Inputs [B, T, D] -> logits [B, T, V] (padding goes on the right).

        Without position [B, T] and mask (additive [B, 1, T, T]) each position attends to those before it within the
        window.
        """
        if position is None:
            position = torch.arange(x.shape[1], device=x.device)
            if x.shape[1] > self.window:
                gap = position[:, None] - position[None]
                mask = torch.where((gap >= 0) & (gap < self.window), 0.0, MASKED)
        cos, sin = rotary(position, self.rotary_dims, self.config.rope_theta)
        for block in self.blocks:
            x = block(x, cos, sin, mask, memory)
            if memory is not None:
                memory = Memory(frames=block.next_frames(memory.frames), chunk=memory.chunk)
        return self.head(self.norm(x))

    def text_logits(self, pieces: Tensor) -> Tensor:
        """Logits [B, T, V] of a plain language model for text alone, pieces [B, T]."""
        return self.logits(self.embed(pieces))

    @property
    def head_dim(self) -> int:
        return self.dim // self.config.heads

    @property
    def cache_heads(self) -> int:
        """Heads of the keys and values of the past."""
        return self.config.kv

    def init_cache(self, batch: int) -> dict[str, Tensor]:
        """Rings of every layer I: "cache.I.k" [B, kv, d, W] and "cache.I.v" [B, kv, W, d], W = window - 1."""
        kv, d, size = self.cache_heads, self.head_dim, self.window - 1
        return {
            f"cache.{i}.{name}": torch.zeros(batch, kv, *((d, size) if name == "k" else (size, d)))
            for i in range(len(self.blocks))
            for name in "kv"
        }

    def step_logits(
        self,
        x: Tensor,
        position: Tensor,
        cache: dict[str, Tensor],
        forward: Rotation | None = None,
        cross: dict[str, Tensor] | None = None,
        chunk: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One position. x [B, D], position [B] int64 -> logits [B, V], new keys and values by the names of `cache`.

        cache: the rings of init_cache(), names without `cache.`; cross: those of the frames, with chunk [B]. forward:
        rotates the keys in the first slots, where these are kept for good.
        """
        rotation = Rotation(
            *rotary(position[:, None], self.rotary_dims, self.config.rope_theta), self.head_dim
        )
        slots = torch.arange(self.window, device=x.device)
        # the last place is the position's own
        seen = (slots < position.reshape(-1, 1, 1, 1)) | (slots == self.window - 1)
        mask = torch.where(seen, 0.0, MASKED)
        ages = None if chunk is None else self.blocks[0].ages(chunk)
        firsts: Sequence[Tensor | None] = [None] * len(self.blocks)
        if forward is not None:
            # of all layers at once
            heads, d = self.cache_heads, self.head_dim
            together = torch.cat([cache[f"{i}.k"][..., :1] for i in range(len(self.blocks))], 1)
            together = forward.heads(together.reshape(-1, len(self.blocks) * heads, 1, d))
            firsts = together.reshape(-1, len(self.blocks) * heads, d, 1).split(heads, 1)
        x = x.unsqueeze(1)
        y: Tensor | None = None
        new: dict[str, Tensor] = {}
        for i, block in enumerate(self.blocks):
            past = {name: cache[f"{i}.{name}"] for name in "kv"}
            ring = None if cross is None else {name: cross[f"{i}.{name}"] for name in "kv"}
            x, y, written = block.step(x, y, rotation, firsts[i], mask, past, ring, ages)
            new |= {f"{i}.{name}": value for name, value in written.items()}
        normalised = self.norm(x) if y is None else add_and_normalise(x, y, self.norm)[1]
        return self.head(normalised).squeeze(1), new


def cache_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rings of the past in a decoder's state, by names without `cache.`."""
    return {name.removeprefix("cache."): v for name, v in state.items() if name.startswith("cache.")}


def write_past(state: dict[str, Tensor], rows: Tensor, slot: Tensor, new: dict[str, Tensor]) -> None:
    """Write the new keys and values of `rows` into `slot` of their rings, and count their positions."""
    for name, value in new.items():
        ring = state[f"cache.{name}"]
        if name.endswith("k"):
            ring[rows, :, :, slot] = value[rows, :, :, 0].float()
        else:
            ring[rows, :, slot] = value[rows, :, 0].float()
    state["position"][rows] += 1
