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
        back: Turn | None,
        mask: Tensor,
        cache: dict[str, Tensor],
        cross: dict[str, Tensor] | None,
        ages: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """x [B, 1, D], mask additive [B, 1, 1, W + 1] -> x, what is to be written into the cache

        cache: "k" [B, kv, d, W] (keys rotated) and "v" [B, kv, W, d]; new are [B, kv, d, 1] and [B, kv, 1, d]. cross:
        the rings of FrameAttention.step, with `ages`, where the decoder reads frames. back: rotates the query for the
        first slot, where that is kept for good. All lies as the products take it, so that nothing is copied.
        """
        heads, kv, d = self.heads, self.kv_heads, self.head_dim
        joined = torch.cat((self.q.weight, self.k.weight, self.v.weight))
        both, v = F.linear(self.norm1(x), joined).split(((heads + kv) * d, kv * d), -1)
        q, k = turn(both).split((heads * d, kv * d), -1)
        k, v = k.reshape(-1, kv, d, 1), v.reshape(-1, kv, 1, d)
        # queries of a group share their key: [B, kv, group, d]
        shape = (-1, kv, heads // kv, d)
        q = q * d**-0.5
        scores = [torch.matmul(q.reshape(shape), cache["k"]), torch.matmul(q.reshape(shape), k)]
        if back is not None:
            first = torch.matmul(back(q).reshape(shape), cache["k"][..., :1])
            scores = [first, scores[0][..., 1:], scores[1]]
        weights = torch.softmax(torch.cat(scores, -1) + mask, -1)
        past, own = weights.split((weights.shape[-1] - 1, 1), -1)
        mixed = torch.matmul(past, cache["v"]) + own * v
        x = x + self.out(mixed.reshape(-1, 1, heads * d))
        if cross is not None and ages is not None:
            x = x + self.frames.step(self.norm_frames(x), cross["k"], cross["v"], ages)
        y = self.norm2(x)
        bias = torch.cat((self.gate.bias, self.up.bias)) if self.gate.bias is not None else None
        gate, up = F.linear(y, torch.cat((self.gate.weight, self.up.weight)), bias).chunk(2, -1)
        return x + self.down(F.silu(gate) * up), {"k": k, "v": v}


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

    def init_cache(self, batch: int) -> dict[str, Tensor]:
        """Rings of the past, for every layer I: "I.k" [B, kv, d, W] and "I.v" [B, kv, W, d], W = window - 1."""
        kv, d = self.config.kv, self.dim // self.config.heads
        return {
            f"{i}.{name}": torch.zeros(
                batch, kv, *((d, self.window - 1) if name == "k" else (self.window - 1, d))
            )
            for i in range(len(self.blocks))
            for name in "kv"
        }

    def init_cross(self, batch: int) -> dict[str, Tensor]:
        """Rings of the frames of the last N chunks: "I.k" [B, H, d, N * F] and "I.v" [B, H, N * F, d]."""
        rings = {}
        for i, block in enumerate(self.blocks):
            if block.reads:
                heads, d, size = block.heads, block.head_dim, block.frames.chunks * block.frames.frames
                rings |= {
                    f"{i}.k": torch.zeros(batch, heads, d, size),
                    f"{i}.v": torch.zeros(batch, heads, size, d),
                }
        return rings

    def read_frames(self, frames: Tensor) -> dict[str, Tensor]:
        """Frames of a chunk [B, F, E] -> what goes into its slot of the rings of init_cross(), by the same names."""
        # one product for all layers
        layers = {
            f"{i}.{n}": getattr(b.frames, n) for i, b in enumerate(self.blocks) if b.reads for n in "kv"
        }
        if not layers:
            return {}
        heads = self.config.heads
        made = F.linear(frames, torch.cat([layer.weight for layer in layers.values()]))
        made = made.reshape(-1, frames.shape[1], len(layers) * heads, self.dim // heads).transpose(1, 2)
        parts = dict(zip(layers, made.split(heads, 1), strict=True))
        return {n: part.transpose(2, 3) if n.endswith("k") else part for n, part in parts.items()}

    def step(
        self,
        x: Tensor,
        position: Tensor,
        cache: dict[str, Tensor],
        cross: dict[str, Tensor] | None = None,
        chunk: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One position. x [B, D], position [B] int64 -> logits [B, V], new keys and values (names of `cache`).

        The caller writes those into the ring (ring_slot() says where) and adds one to position; of a reading decoder
        only where a piece is written. Such a one takes the rings of frames and chunk [B] too.
        """
        theta, d = self.config.rope_theta, self.dim // self.config.heads
        turn = Turn(*rotary(position[:, None], self.rotary_dims, theta), d)
        slots = torch.arange(self.window, device=x.device)
        # the last place is the position's own
        seen = (slots < position.reshape(-1, 1, 1, 1)) | (slots == self.window - 1)
        mask = torch.where(seen, 0.0, MASKED)
        back = None
        if self.config.frame_chunks:
            # the first step is at most REACH positions away: the query turns back by what is beyond
            beyond = (position - REACH).clamp(min=0)
            cos, sin = rotary(beyond[:, None], self.rotary_dims, theta)
            back = Turn(cos, -sin, d)
        ages = self.blocks[0].frames.ages(chunk) if cross and chunk is not None else None
        x, new = x.unsqueeze(1), {}
        for i, block in enumerate(self.blocks):
            past = {name: cache[f"{i}.{name}"] for name in "kv"}
            heard = {name: cross[f"{i}.{name}"] for name in "kv"} if cross and block.reads else None
            x, written = block.step(x, turn, back, mask, past, heard, ages)
            new |= {f"{i}.{name}": value for name, value in written.items()}
        return self.head(self.norm(x)).squeeze(1), new

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
