"""A Llama-style decoder (Touvron et al., arXiv 2302.13971): RMSNorm, rotary positions, SwiGLU, grouped queries.

Attention is windowed: a position sees itself and the window - 1 before it, in forward() and in step() alike.

The same decoder comes in two kinds (ARCHITECTURE.md, contract "Decoder"). The paper's *interleaving* one has a position
for every embedding and every piece. A *reading* one (`frame_chunks`) has, besides, an attention of every layer to the
encoder's frames; its past consists of the positions that wrote a piece.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import DecoderConfig
from ..layers.attention import MASKED, Turn, attend, rotary, rotate
from ..layers.norm import RMSNorm
from .cross_attention import FrameAttention, Reading

# pieces: a reading decoder's first step seems to be at most so far away, however long the stream. No training sequence
# has as many, so forward() does without; from some thousands on words are lost
REACH = 512


class Block(nn.Module):
    """Self-attention, attention to frames where the decoder reads them, feed-forward; each pre-norm with a residual."""

    def __init__(self, config: DecoderConfig, frame_dim: int, frames_per_chunk: int):
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv
        self.head_dim = config.dim // config.heads
        d, h = config.dim, self.head_dim
        self.norm1 = RMSNorm(d)
        self.q = nn.Linear(d, self.heads * h, bias=False)
        self.k = nn.Linear(d, self.kv_heads * h, bias=False)
        self.v = nn.Linear(d, self.kv_heads * h, bias=False)
        self.out = nn.Linear(self.heads * h, d, bias=False)
        self.reads = bool(config.frame_chunks)
        if self.reads:
            self.norm_frames = RMSNorm(d)
            self.frames = FrameAttention(d, self.heads, frame_dim, frames_per_chunk, config.frame_chunks)
        self.norm2 = RMSNorm(d)
        self.gate = nn.Linear(d, config.ffn, bias=config.mlp_bias)
        self.up = nn.Linear(d, config.ffn, bias=config.mlp_bias)
        self.down = nn.Linear(config.ffn, d, bias=config.mlp_bias)
        self.dropout = nn.Dropout(config.dropout)

    def _feed_forward(self, x: Tensor) -> Tensor:
        y = self.norm2(x)
        return x + self.dropout(self.down(F.silu(self.gate(y)) * self.up(y)))

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, reading: Reading | None
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
        if reading is not None:
            x = x + self.dropout(self.frames(self.norm_frames(x), reading.frames, reading.chunk))
        return self._feed_forward(x)

    def step(
        self,
        x: Tensor,
        turn: Turn,
        mask: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        frames: Tensor | None,
        chunk: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, D]; caches [B, W, H * d] (keys rotated), mask additive [B, 1, 1, W] -> x, new key, new value [B, H * d]

        frames [B, N * F, E] and chunk [B] as FrameAttention.step takes them, where the decoder reads. The scores of
        cache and self are joined, not the keys, so that no layer copies the cache.
        """
        y = self.norm1(x)
        kv, d, window = self.kv_heads, self.head_dim, cache_k.shape[1]
        # reshaped with sizes that are known: ONNX would compute others anew in every layer
        q = turn(self.q(y).reshape(-1, self.heads, d)) * d**-0.5
        k = turn(self.k(y).reshape(-1, kv, d))
        v = self.v(y).reshape(-1, kv, 1, d)
        # queries of a group share their key: [B, kv, group, d]
        q = q.reshape(-1, kv, self.heads // kv, d)
        past_k = cache_k.reshape(-1, window, kv, d)
        past_v = cache_v.reshape(-1, window, kv, d)
        past = torch.matmul(q, past_k.permute(0, 2, 3, 1)) + mask
        own = torch.matmul(q, k.unsqueeze(-1))
        weights = torch.softmax(torch.cat((past, own), -1), -1)
        past, own = weights.split((window, 1), -1)
        mixed = torch.matmul(past, past_v.transpose(1, 2)) + own * v
        x = x + self.out(mixed.reshape(-1, self.heads * d))
        if self.reads:
            x = x + self.frames.step(self.norm_frames(x), frames, chunk)
        # with a dimension for time it becomes matrix products in ONNX too, which can be 8-bit
        x = self._feed_forward(x.unsqueeze(1)).squeeze(1)
        return x, k.reshape(-1, kv * d), v.reshape(-1, kv * d)


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


class LlamaDecoder(nn.Module):
    """Decoder-only LM over embeddings: the same weights read text alone and interleaved speech."""

    def __init__(self, config: DecoderConfig, vocab_size: int, frame_dim: int = 0, frames_per_chunk: int = 0):
        """frame_dim, frames_per_chunk: of the encoder, for a reading decoder."""
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.dim, self.window = config.dim, config.window
        if not config.tie_embeddings:
            self.embed: nn.Module = nn.Embedding(vocab_size, config.dim)
        self.rotary_dims = int(config.dim // config.heads * config.rotary_fraction) // 2 * 2
        self.blocks = nn.ModuleList(Block(config, frame_dim, frames_per_chunk) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, vocab_size, bias=False)
        if config.tie_embeddings:
            self.embed = TiedEmbedding(self.head)
        self.apply(self._init)

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.dim**-0.5 * 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)

    def forward(self, x: Tensor, reading: Reading | None = None) -> Tensor:
        """Input embeddings [B, T, D] -> logits [B, T, V] (padding goes on the right).

        Without `reading` a reading decoder is a plain language model.
        """
        length = x.shape[1]
        position = torch.arange(length, device=x.device) if reading is None else reading.position
        cos, sin = rotary(position, self.rotary_dims, self.config.rope_theta)
        mask = None
        if reading is not None:
            mask = reading.past(self.window)
        elif length > self.window:
            gap = position[:, None] - position[None]
            mask = torch.where((gap >= 0) & (gap < self.window), 0.0, MASKED)
        for block in self.blocks:
            x = block(x, cos, sin, mask, reading)
        return self.head(self.norm(x))

    def init_cache(self, batch: int) -> tuple[Tensor, Tensor]:
        """Ring caches of keys and values [B, L, window - 1, kv heads * d]."""
        shape = (batch, len(self.blocks), self.window - 1, self.config.kv * (self.dim // self.config.heads))
        return torch.zeros(shape), torch.zeros(shape)

    def step(
        self,
        x: Tensor,
        position: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        frames: Tensor | None = None,
        chunk: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One position. x [B, D], position [B] int64 -> logits [B, V], new keys and values [B, L, H * d].

        The caller writes those into the ring (ring_slot() says where) and adds one to position; of a reading
        decoder only where a piece is written. Such a one takes the ring of frames [B, N * F, E] and chunk [B] too.
        """
        cos, sin = rotary(position, self.rotary_dims, self.config.rope_theta)
        turn = Turn(cos, sin, self.dim // self.config.heads)
        slots = torch.arange(self.window - 1, device=x.device)
        mask = torch.where(slots < position.reshape(-1, 1, 1, 1), 0.0, MASKED)
        if self.config.frame_chunks:
            cache_k = self._first_within_reach(position, cache_k)
        keys, values = [], []
        for i, block in enumerate(self.blocks):
            x, k, v = block.step(x, turn, mask, cache_k[:, i], cache_v[:, i], frames, chunk)
            keys.append(k)
            values.append(v)
        return self.head(self.norm(x)), torch.stack(keys, 1), torch.stack(values, 1)

    def _first_within_reach(self, position: Tensor, cache_k: Tensor) -> Tensor:
        """The keys of a reading decoder, that of the first step turned so that it is REACH positions away at most.

        The keys are copied, once a step.
        """
        layers, width = len(self.blocks), cache_k.shape[3]
        d = self.dim // self.config.heads
        beyond = (position - REACH).clamp(min=0)
        turn = Turn(*rotary(beyond, self.rotary_dims, self.config.rope_theta), d)
        first = turn(cache_k[:, :, 0].reshape(-1, layers * (width // d), d)).reshape(-1, layers, 1, width)
        return torch.cat((first, cache_k[:, :, 1:]), 2)

    def load_huggingface(self, weights: dict[str, Tensor]) -> None:
        """Weights of a Hugging Face LlamaForCausalLM of the same shape (state dict names)."""
        names = {
            "embed.weight": "model.embed_tokens.weight",
            "norm.weight": "model.norm.weight",
            "head.weight": "lm_head.weight" if "lm_head.weight" in weights else "model.embed_tokens.weight",
        }
        inner = {
            "norm1": "input_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
            "out": "self_attn.o_proj", "norm2": "post_attention_layernorm",
            "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
        }  # fmt: skip
        for i in range(len(self.blocks)):
            names |= {f"blocks.{i}.{a}.weight": f"model.layers.{i}.{b}.weight" for a, b in inner.items()}
        self.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()})
