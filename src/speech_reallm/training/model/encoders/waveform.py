"""A streaming encoder of raw audio: strided convolutions, then a rotary-position transformer.

The architecture and parameter shapes are those of the Moonshine encoder (Jeffries et al., arXiv 2410.15608),
so that published weights warm-start it. Two things differ, so that it streams: attention is in blocks
(block_attention.py), and the statistics of the group normalisation are accumulated over the stream instead of taken
over the utterance.
A frame is 384 samples (24 ms); the convolutions use no audio after its end.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....audio import SAMPLE_RATE
from ...config import EncoderConfig
from ..layers.attention import MASKED
from ..layers.fused import add_and_normalise
from ..layers.module_list import ModuleList
from ..layers.rotary import Rotation, rotary
from . import Encoder
from .block_attention import BlockAttention, blocks_of, select, write_ring

HOP = 384
# samples before a chunk that its first frame reaches back to: 127 + 64 * 6 + 192 * 2 - 384
PAST = 511
# first-convolution outputs of a chunk's window that belong to the previous chunk
OVERLAP = 7
# the statistics of the normalisation forget beyond this many chunks
MEMORY = 256
# mean square of the first convolution under which a chunk does not count: digital silence and its dither
SILENCE = 1e-9
# added to the variance; the published encoder's 1e-5 is that of speech 45 dB below what is usual
EPSILON = 1e-9
# nor does one that is weaker than the average by this factor (30 dB); one that is stronger by the other (23 dB) begins
# the average anew, so that what came before the speech does not scale it
WEAK, STRONG = 1e-3, 200.0
# the average counts for no more than the strongest of so many last chunks: after a loud sound it would keep speech
# small for a minute
RECENT = 5
# a high-pass filter (Butterworth, 4th order) takes out hum, wind and rumble, which no 8 ms window of the first
# convolution can tell from speech; its response is as good as zero after so many samples
HIGH_PASS_HERTZ, HIGH_PASS_TAPS = 100.0, 961
# samples that the filter makes at once
FILTER_BLOCK = 120


def high_pass_matrix() -> Tensor:
    """The filter as a matrix [HIGH_PASS_TAPS - 1 + FILTER_BLOCK, FILTER_BLOCK]: FILTER_BLOCK samples and those before.

    The filter's impulse response is cut off, so that the state of a stream is nothing but samples.
    """
    import numpy as np
    from scipy.signal import butter, sosfilt

    sections = butter(4, HIGH_PASS_HERTZ, "high", fs=SAMPLE_RATE, output="sos")
    response = sosfilt(sections, np.eye(1, HIGH_PASS_TAPS)[0])
    past = HIGH_PASS_TAPS - 1
    lag = past + np.arange(FILTER_BLOCK)[None] - np.arange(past + FILTER_BLOCK)[:, None]
    inside = (lag >= 0) & (lag <= past)
    return torch.from_numpy(np.where(inside, response[lag.clip(0, past)], 0.0)).float()


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: EncoderConfig, frames: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, bias=False)
        self.attention = BlockAttention(
            config.dim, config.heads, frames, config.left_chunks, config.rotary_fraction
        )
        self.norm2 = nn.LayerNorm(config.dim, bias=False)
        self.up = nn.Linear(config.dim, config.ffn)
        self.down = nn.Linear(config.ffn, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def feed_forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))

    def forward(self, x: Tensor, final: bool = False) -> Tensor:
        """Blocks [B, C, (R + 1) F, D] -> the same; with `final` their chunks alone, [B, C, F, D]"""
        y = self.dropout(self.attention(self.norm1(x), final))
        return self.feed_forward(x[:, :, : y.shape[2]] + y)

    def forward_full(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, T, D], valid [B, T] -> [B, T, D]"""
        return self.feed_forward(x + self.dropout(self.attention.forward_full(self.norm1(x), valid)))

    def step(
        self,
        x: Tensor,
        y: Tensor | None,
        mask: Tensor,
        rotation: Rotation,
        chunk: Tensor,
        state: dict[str, Tensor],
        final: bool = False,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See BlockAttention.step. The input is x + y, the output the sum of the first two: added in the next norm."""
        if y is None:
            normalised = self.norm1(x)
        else:
            x, normalised = add_and_normalise(x, y, self.norm1)
        y, new = self.attention.step(normalised, mask, rotation, chunk, state, final)
        if final:
            x = select(x, 1, chunk)
        x, normalised = add_and_normalise(x, y, self.norm2)
        return x, self.down(F.gelu(self.up(normalised))), new


class WaveformEncoder(Encoder):
    """See ARCHITECTURE.md, contract "Encoder"."""

    def __init__(self, config: EncoderConfig, chunk_ms: int = 240):
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.chunk_samples = 16 * chunk_ms
        if self.chunk_samples % HOP:
            raise ValueError(f"chunk_ms must be a multiple of {HOP // 16}")
        self.frames_per_chunk = self.chunk_samples // HOP
        self.lookahead_chunks = config.lookahead_chunks
        d = config.dim
        self.conv1 = nn.Conv1d(1, d, 127, stride=64, bias=False)
        self.norm_weight = nn.Parameter(torch.ones(d))
        self.norm_bias = nn.Parameter(torch.zeros(d))
        self.conv2 = nn.Conv1d(d, 2 * d, 7, stride=3)
        self.conv3 = nn.Conv1d(2 * d, d, 3, stride=2)
        self.layers = ModuleList(Layer(config, self.frames_per_chunk) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d, bias=False)
        self.high_pass: Tensor | None
        self.register_buffer("high_pass", high_pass_matrix() if config.high_pass else None, persistent=False)

    # -- from samples to frames, chunk by chunk

    def _filtered(self, samples: Tensor) -> Tensor:
        """The high-pass filter: samples [B, HIGH_PASS_TAPS - 1 + n], n a multiple of FILTER_BLOCK -> [B, n]"""
        assert self.high_pass is not None
        blocks = samples.reshape(len(samples), -1, FILTER_BLOCK)
        width = self.high_pass.shape[0] // FILTER_BLOCK
        count = blocks.shape[1] - width + 1
        windows = torch.cat([blocks[:, i : i + count] for i in range(width)], -1)
        with torch.autocast(samples.device.type, enabled=False):
            return torch.matmul(windows.float(), self.high_pass).flatten(1)

    def _first_conv(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """windows [N, PAST + S] -> tanh(conv1) [N, D, 6 F + 7], statistics [N, 3] (weight, mean, mean square)."""
        y = torch.tanh(self.conv1(windows.unsqueeze(1)))
        return y, self._statistics(y[:, :, OVERLAP:])

    @staticmethod
    def _statistics(y: Tensor) -> Tensor:
        """tanh(conv1) of a chunk, [N, ., .] -> [N, 3] (weight, mean, mean square)"""
        y = y.float()
        mean, square = y.mean((1, 2)), y.square().mean((1, 2))
        return torch.stack(((square > SILENCE).to(mean.dtype), mean, square), dim=-1)

    def _gain(self, stats: Tensor) -> tuple[Tensor, Tensor]:
        """stats [N, 3] -> what the normalisation multiplies with and adds, [N, D]"""
        mean = stats[:, 1]
        scale = torch.rsqrt((stats[:, 2] - mean.square()).clamp(min=0) + EPSILON)
        gain = scale[:, None] * self.norm_weight
        return gain, self.norm_bias - mean[:, None] * gain

    def _frames(self, y: Tensor, stats: Tensor) -> Tensor:
        """Normalise by stats [N, 3], then the other convolutions: [N, D, 6 F + 7] -> [N, F, D]."""
        gain, offset = self._gain(stats)
        y = torch.addcmul(offset[..., None].to(y.dtype), y, gain[..., None].to(y.dtype))
        return F.gelu(self.conv3(F.gelu(self.conv2(y)))).transpose(1, 2)

    @staticmethod
    def _accumulate(stats: Tensor, new: Tensor) -> Tensor:
        """Running statistics [B, 3] (chunks counted, mean, mean square) after a chunk of statistics new [B, 3]."""
        before, square = stats[:, 2:], new[:, 2:]
        counted = stats[:, :1] * (square <= STRONG * before)
        one = new[:, :1] * (square >= WEAK * before)
        weight = torch.clamp(counted + one, max=MEMORY)
        rate = one / weight.clamp(min=1)
        return torch.cat((weight, stats[:, 1:] + rate * (new[:, 1:] - stats[:, 1:])), dim=-1)

    @staticmethod
    def _limited(stats: Tensor, recent: Tensor) -> Tensor:
        """stats [..., 3] with the mean square no larger than the largest of `recent` [..., RECENT]."""
        strongest = recent.amax(-1, keepdim=True)
        return torch.cat((stats[..., :2], torch.minimum(stats[..., 2:], strongest)), -1)

    def _accumulate_all(self, new: Tensor) -> Tensor:
        """What each chunk is normalised by, as step() finds it: new [B, C, 3] -> [B, C, 3]."""
        rows = [torch.zeros_like(new[:, 0])]
        for c in range(new.shape[1]):
            rows.append(self._accumulate(rows[-1], new[:, c]))
        recent = F.pad(new[..., 2], (RECENT - 1, 0)).unfold(1, RECENT, 1)
        return self._limited(torch.stack(rows[1:], 1), recent)

    def _front(self, audio: Tensor, valid_chunks: Tensor | None = None) -> Tensor:
        """audio [B, C * S] -> [B, C, F, D]. With valid_chunks [B], statistics are those of the utterance."""
        if self.high_pass is not None:
            audio = self._filtered(F.pad(audio, (HIGH_PASS_TAPS - 1, 0)))
        windows = F.pad(audio, (PAST, 0)).unfold(1, PAST + self.chunk_samples, self.chunk_samples)
        batch, chunks = windows.shape[:2]
        y, new = self._first_conv(windows.flatten(0, 1))
        new = new.unflatten(0, (batch, chunks))
        if valid_chunks is None:
            stats = self._accumulate_all(new)
        else:
            inside = torch.arange(chunks, device=audio.device)[None] < valid_chunks[:, None]
            weight = new[..., :1] * inside[..., None]
            total = weight.sum(1, keepdim=True)
            mean = (weight * new[..., 1:]).sum(1, keepdim=True) / total.clamp(min=1)
            stats = torch.cat((total, mean), dim=-1).expand(-1, chunks, -1)
        return self._frames(y, stats.flatten(0, 1)).unflatten(0, (batch, chunks))

    # -- the two forms

    def frame_offset(self, delay: int) -> int:
        """Chunks of right context more than without label delay; so many chunks later come the frames."""
        return self.config.right_context_at(delay) - self.config.right_context[0]

    def forward(
        self,
        audio: Tensor,
        lengths: Tensor | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        delay: int = 0,
    ) -> Tensor:
        """audio [B, (C + A) * S] in [-1, 1] -> frames [B, C * F, D], A = lookahead_chunks.

        delay: the streams' label delay, in chunks; the first frame_offset(delay) chunks of frames are zeros, then
            the audio
        begins.
        `lengths` [B] (samples) is used by full-context encoders alone: what lies beyond is not attended to.
        `augment` masks the frames [B, T, D] that enter the transformer (SpecAugment, in training).
        """
        if self.config.full_context:
            if lengths is None:
                lengths = torch.full((len(audio),), audio.shape[1], device=audio.device)
            valid_chunks = (lengths + self.chunk_samples - 1) // self.chunk_samples
            x = self._front(audio, valid_chunks).flatten(1, 2)
            x = augment(x) if augment else x
            frames = (lengths + HOP - 1) // HOP
            valid = torch.arange(x.shape[1], device=x.device)[None] < frames[:, None]
            for layer in self.layers:
                x = layer.forward_full(x, valid)
            return self.norm(x)
        x = self._front(audio)
        x = augment(x.flatten(1, 2)).reshape(x.shape) if augment else x
        offset = self.frame_offset(delay)
        x = blocks_of(x, self.lookahead_chunks + offset)
        for layer in self.layers:
            x = layer(x, final=layer is self.layers[-1])
        return F.pad(self.norm(x).flatten(1, 2), (0, 0, offset * self.frames_per_chunk, 0))

    @property
    def _most(self) -> int:
        """Chunks of right context at most."""
        return self.config.right_context[-1]

    def init_state(self, batch: int) -> dict[str, Tensor]:
        """All zeros. `chunk` counts the steps taken; `recent` is what entered the transformer last.

        `layerI.k` and `.v` are rings of `left_chunks` chunks, the step number n in slot n % left_chunks.
        """
        state = {
            "chunk": torch.zeros(batch, dtype=torch.int64),
            "audio": torch.zeros(batch, PAST),
            "norm": torch.zeros(batch, 3),
            "squares": torch.zeros(batch, RECENT - 1),
        }
        if self.high_pass is not None:
            state["samples"] = torch.zeros(batch, HIGH_PASS_TAPS - 1)
        if self._most:
            state["recent"] = torch.zeros(batch, self._most * self.frames_per_chunk, self.dim)
        if self.config.left_chunks:
            for i, layer in enumerate(self.layers):
                rings = layer.attention.init_state(batch)
                state |= {f"layer{i}.{name}": value for name, value in rings.items()}
        return state

    def step(
        self, audio: Tensor, state: dict[str, Tensor], delay: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """audio [B, S], delay [B] (0 for None) -> frames [B, F, D], new state.

        The frames are those of the chunk lookahead_chunks + frame_offset(delay) ago, zeros where there is none.
        """
        frames, new = self.advance(audio, state, delay)
        left = max(self.config.left_chunks or 0, 1)
        rings = {n: write_ring(state[n], v, state["chunk"] % left) for n, v in new.items() if n in self.rings}
        return frames, new | rings

    @property
    def rings(self) -> list[str]:
        """Names of the state that advance() does not replace, but writes one slot of."""
        return (
            [f"layer{i}.{n}" for i in range(len(self.layers)) for n in "kv"]
            if self.config.left_chunks
            else []
        )

    def advance(
        self, audio: Tensor, state: dict[str, Tensor], delay: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """step(), but of the rings only what is to be written into them, so that nothing is copied."""
        per, count = self.frames_per_chunk, self._most + 1
        new = {"chunk": state["chunk"] + 1}
        if self.high_pass is not None:
            samples = torch.cat((state["samples"], audio), 1)
            new["samples"] = samples[:, self.chunk_samples :]
            audio = self._filtered(samples)
        window = torch.cat((state["audio"], audio), dim=1)
        y = torch.tanh(convolve(self.conv1, window.unsqueeze(-1)))
        stats = self._statistics(y[:, OVERLAP:])
        recent = torch.cat((state["squares"], stats[:, 2:]), 1)
        stats = self._accumulate(state["norm"], stats)
        gain, offset = self._gain(self._limited(stats, recent))
        y = y * gain.unsqueeze(1) + offset.unsqueeze(1)
        x = F.gelu(convolve(self.conv3, F.gelu(convolve(self.conv2, y))))
        new |= {"audio": window[:, -PAST:], "norm": stats, "squares": recent[:, 1:]}
        if self._most:
            x = torch.cat((state["recent"], x), 1)
            new["recent"] = x[:, per:]
        if delay is None:
            delay = torch.zeros_like(state["chunk"])
        # the block is the last chunks received; with less right context its first ones are not attended to
        extra = len(self.config.right_context) - 1
        first = extra - delay.clamp(max=extra)
        index = state["chunk"] - self._most + first
        slot = torch.arange(count, device=x.device)
        left = self.config.left_chunks
        assert left is not None
        # a slot holds what the last of these steps wrote; before chunk 0 there is nothing
        steps = torch.arange(left, device=x.device)
        ago = torch.remainder(state["chunk"][:, None] - 1 - steps, max(left, 1)) + 1
        seen = torch.cat((index[:, None] - ago >= 0, slot >= first[:, None]), 1)
        mask = torch.where(seen, 0.0, MASKED).repeat_interleave(per, 1)[:, None, None]
        chunk = first[:, None] * per + torch.arange(per, device=x.device)
        frame = (state["chunk"] - self._most)[:, None] * per + torch.arange(count * per, device=x.device)
        attention = self.layers[0].attention
        rotation = Rotation(*rotary(frame, attention.rotary_dims), attention.head_dim)
        added: Tensor | None = None
        for i, layer in enumerate(self.layers):
            mine = (
                {name: state[f"layer{i}.{name}"] for name in "kv"}
                if left
                else layer.attention.init_state(len(x))
            )
            last = layer is self.layers[-1]
            x, added, written = layer.step(x, added, mask, rotation, chunk, mine, final=last)
            if left:
                new |= {f"layer{i}.{name}": value for name, value in written.items()}
        frames = self.norm(x) if added is None else add_and_normalise(x, added, self.norm)[1]
        return torch.where((index >= 0)[:, None, None], frames, 0.0), new


def convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """The convolution of x [B, T, C] as one product, which can be 8-bit in ONNX -> [B, T', N]"""
    taps, stride = conv.kernel_size[0], conv.stride[0]
    count = (x.shape[1] - taps) // stride + 1
    # windows overlap: they are put together of blocks of `stride` samples
    x = F.pad(x, (0, 0, 0, -x.shape[1] % stride)).reshape(len(x), -1, stride * x.shape[2])
    width = x.shape[2] // stride
    parts = [
        x[:, j // stride : j // stride + count, : min(stride, taps - j) * width]
        for j in range(0, taps, stride)
    ]
    return F.linear(
        torch.cat(parts, -1), conv.weight.transpose(1, 2).reshape(conv.out_channels, -1), conv.bias
    )
