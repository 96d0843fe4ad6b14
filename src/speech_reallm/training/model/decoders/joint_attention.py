"""A decoder-only model whose layers have one attention, over speech and text together, and no other.

Speech and text are the positions of one sequence. A chunk enters as one speech position for each of its frames, all in
one call, and one position that takes the last piece again, from which the next symbol is predicted. A layer is one
self-attention, whose softmax runs over the speech positions of the last chunks and the pieces alike, and one
feed-forward. Projections and feed-forward of speech positions have weights of their own (Mixture-of-Transformers, Liang
et al., TMLR 2025), and speech positions attend to none but themselves, since the encoder has mixed them already
(composite attention, EE-MLLM, arXiv 2408.11795). That makes an answer depend on the text and the chunk alone, as the
cross-attending decoder's does, so that both are trained and run alike.

There are twice as many heads as `heads` says, so that a published attention decoder can be the start: one half of them
from its self-attention, the other from its attention to the encoder's frames. A learned number for each head, added to
the scores of speech, makes the former begin as heads for text and the latter as heads for speech.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import DecoderConfig, ModelConfig
from ..layers.attention import MASKED
from ..layers.norm import RMSNorm
from ..layers.rotary import Rotation, rotate
from .cross_attention import CrossAttention, CrossAttentionDecoder
from .llama import Block, Memory

# what is added to or taken from the scores of speech at the start: a head that is not for it gives it a fiftieth
SPEECH_BIAS = 4.0
# of weights that the norms are divided by, so that a projection can take another one's place
SMALLEST = 1e-3


class JointAttentionDecoder(CrossAttentionDecoder):
    """Fed as the cross-attending decoder is, and with the same state. See Decoder."""

    def __init__(self, config: ModelConfig, frame_dim: int, frames_per_chunk: int):
        """frame_dim, frames_per_chunk: of the encoder. Raises UserError for settings that do not go together."""
        super().__init__(config, frame_dim, frames_per_chunk)
        for block in self._layers():
            block.start()

    def _layers(self) -> list[JointBlock]:
        return [block for block in self.blocks if isinstance(block, JointBlock)]

    def converted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return joint_weights(weights)

    def make_block(self, config: ModelConfig, frame_dim: int, frames_per_chunk: int) -> Callable[[], Block]:
        decoder = config.decoder
        chunks = decoder.cross_attention_chunks
        return partial(JointBlock, decoder, frame_dim, frames_per_chunk, chunks)

    @property
    def cache_heads(self) -> int:
        return 2 * self.config.heads

    @property
    def cross_heads(self) -> int:
        return 2 * self.config.heads

    def frame_outputs(self, frames: Tensor) -> dict[str, Tensor]:
        made = {}
        for i, block in enumerate(self._layers()):
            for name in "kv":
                split = block.speech.split(getattr(block.speech, name)(frames))
                made[f"cross.{i}.{name}"] = split.transpose(2, 3) if name == "k" else split
            frames = block.next_frames(frames)
        return made


class JointBlock(Block):
    """One attention over speech and text, feed-forwards for each; pre-norm with residuals."""

    def __init__(self, config: DecoderConfig, frame_dim: int, frames_per_chunk: int, chunks: int):
        super().__init__(config)
        d, width = config.dim, 2 * config.dim
        self.heads = self.kv_heads = 2 * config.heads
        self.q, self.k, self.v = (nn.Linear(d, width, bias=False) for _ in "qkv")
        self.out = nn.Linear(width, d, bias=False)
        self.speech = SpeechPositions(
            config.dim, config.heads, frame_dim, frames_per_chunk, chunks, config.speech_ffn
        )

    def start(self) -> None:
        """Heads of the first half begin as heads for text, the others as heads for speech."""
        half = self.heads // 2
        with torch.no_grad():
            self.speech.bias[:half], self.speech.bias[half:] = -SPEECH_BIAS, SPEECH_BIAS
            if self.speech.ffn:
                # speech positions begin as what the encoder made of them, in every layer
                nn.init.zeros_(self.speech.down.weight)

    def next_frames(self, frames: Tensor) -> Tensor:
        return self.speech.feed_forward(frames)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, memory: Memory | None
    ) -> Tensor:
        y = self.norm1(x)
        # positions of speech have no order among themselves but the age of their chunk: their scores are not rotated
        plain = self.q(y).unflatten(-1, (self.heads, -1)) * self.head_dim**-0.5
        q = rotate(plain, cos, sin).transpose(1, 2)
        k = rotate(self.k(y).unflatten(-1, (self.heads, -1)), cos, sin).transpose(1, 2)
        v = self.v(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores = torch.matmul(q, k.transpose(2, 3))
        if mask is None:
            places = torch.arange(x.shape[1], device=x.device)
            mask = torch.where(places[:, None] >= places, 0.0, MASKED)
        scores = scores + mask
        if memory is None:
            y = torch.matmul(torch.softmax(scores, -1).to(v.dtype), v)
        else:
            y = self.speech.attend(plain.transpose(1, 2), scores, v, memory)
        x = x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))
        return self._feed_forward(x)

    def ages(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        return self.speech.ages(chunk)

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
        assert first is not None and cross is not None and ages is not None
        heads, d, size = self.heads, self.head_dim, self.heads * self.head_dim
        joined = torch.cat((self.q.weight, self.k.weight, self.v.weight))
        x, normalised = self._normalised(x, y)
        plain, k, v = F.linear(normalised, joined).split((size, size, size), -1)
        plain = plain * d**-0.5
        q, k, v = rotation(plain), rotation(k).reshape(-1, heads, d, 1), v.reshape(-1, heads, 1, d)
        shape = (-1, heads, 1, d)
        q = q.reshape(shape)
        # the first slot is an attention sink, see CrossAttentionDecoder.step
        past = torch.matmul(q, cache["k"])[..., 1:]
        text = torch.cat((torch.matmul(q, first), past, torch.matmul(q, k)), -1) + mask
        speech, by_age = self.speech.step_scores(plain.reshape(shape), cross["k"], ages)
        weights = torch.softmax(torch.cat((text, speech), -1), -1)
        window, frames = int(mask.shape[-1]) - 1, int(cross["k"].shape[-1])
        w_past, w_own, w_speech = weights.split((window, 1, frames), -1)
        y = torch.matmul(w_past, cache["v"]) + w_own * v + torch.matmul(w_speech, cross["v"])
        y = y + torch.matmul(torch.matmul(w_speech, ages[0].transpose(2, 3)), by_age)
        return *self._feed_forward_step(x, self.out(y.reshape(-1, 1, size))), {"k": k, "v": v}


class SpeechPositions(CrossAttention):
    """What the speech positions of a layer have of their own: keys, values, feed-forward, a number for each head."""

    def __init__(self, dim: int, heads: int, frame_dim: int, frames_per_chunk: int, chunks: int, ffn: int):
        super().__init__(2 * dim, 2 * heads, frame_dim, frames_per_chunk, chunks)
        # queries and the output are the text's
        del self.q, self.out
        self.bias = nn.Parameter(torch.zeros(2 * heads))
        self.ffn = ffn
        if ffn:
            self.norm = RMSNorm(frame_dim)
            self.up, self.down = nn.Linear(frame_dim, ffn, bias=False), nn.Linear(ffn, frame_dim, bias=False)

    def feed_forward(self, frames: Tensor) -> Tensor:
        """[B, T, E] -> the same shape"""
        return frames + self.down(F.silu(self.up(self.norm(frames)))) if self.ffn else frames

    def split(self, x: Tensor) -> Tensor:
        """[..., T, D] -> [..., H, T, d]"""
        return self._split(x)

    def attend(self, q: Tensor, text: Tensor, text_values: Tensor, memory: Memory) -> Tensor:
        """One softmax over text and speech. q [B, H, T, d], scores of text [B, H, T, T], its values -> [B, H, T, d]"""
        count, size = memory.frames.shape[1] // self.frames_per_chunk, text.shape[-1]
        k, v = self._split(self.k(memory.frames)), self._split(self.v(memory.frames))
        age_k, age_v = self._split(self.k(self.chunk_age)), self._split(self.v(self.chunk_age))
        speech = torch.matmul(q, k.transpose(-1, -2)).unflatten(-1, (count, self.frames_per_chunk))
        by_age = self.by_chunk(torch.matmul(q, age_k.transpose(-1, -2)).float(), memory.chunk, count)
        speech = speech + (by_age + self.bias[:, None, None]).unsqueeze(-1)
        weights = torch.softmax(torch.cat((text, speech.flatten(-2)), -1), -1).to(v.dtype)
        on_text, on_speech = weights.split((size, weights.shape[-1] - size), -1)
        y = torch.matmul(on_text, text_values) + torch.matmul(on_speech, v)
        return y + torch.matmul(self.by_age(on_speech, memory.chunk, count).to(v.dtype), age_v)

    def step_scores(self, q: Tensor, k: Tensor, ages: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """q [B, H, 1, d], ring of keys [B, H, d, N * F] -> scores [B, H, 1, N * F], values by age [H, N, d]"""
        age_k, age_v = (
            layer(self.chunk_age).reshape(-1, self.heads, self.head_dim).transpose(0, 1)
            for layer in (self.k, self.v)
        )
        one_hot, empty = ages
        by_age = torch.matmul(torch.matmul(q, age_k.transpose(1, 2)) + empty, one_hot)
        return torch.matmul(q, k) + by_age + self.bias[:, None, None], age_v


def joint_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The decoder of a recogniser that attends to frames beside the text, as one with joint attention.

    weights: of a ReaLLM with a cross-attending decoder, by names; the others pass through. Where a published layer
    attends first to the text and then to the frames, ours does both at once, so the two do not agree to the last digit.
    Off its own half a head's keys and values begin as zeros.
    """
    result: dict[str, Tensor] = {}
    for name, value in weights.items():
        found = re.fullmatch(r"(.*blocks\.\d+)\.(.+)", name)
        layer, kind = found.groups() if found else ("", "")
        if f"{layer}.cross_attention.q.weight" not in weights:
            result[name] = value
        elif kind == "q.weight":
            # each half of the heads had a norm of its own before it
            own, other = (weights[f"{layer}.{n}.weight"] for n in ("norm1", "norm_cross_attention"))
            scale = other / torch.where(own.abs() < SMALLEST, SMALLEST, own)
            result[name] = torch.cat((value, weights[f"{layer}.cross_attention.q.weight"] * scale))
        elif kind in ("k.weight", "v.weight"):
            result[name] = torch.cat((value, torch.zeros_like(value)))
            speech = weights[f"{layer}.cross_attention.{kind}"]
            result[f"{layer}.speech.{kind}"] = torch.cat((torch.zeros_like(speech), speech))
        elif kind == "out.weight":
            result[name] = torch.cat((value, weights[f"{layer}.cross_attention.out.weight"]), 1)
        elif kind == "cross_attention.chunk_age":
            result[f"{layer}.speech.chunk_age"] = value
        elif not kind.startswith(("cross_attention.", "norm_cross_attention.")):
            result[name] = value
    return result
