"""A streaming Conformer encoder of log-mel features.

Conformer: Gulati et al., arXiv 2005.08100, with what streaming asks for: chunked attention with rotary
positions, causal convolutions, and LayerNorm instead of BatchNorm inside the convolution module (as in Li et
al., arXiv 2011.10798). The 20-layer encoder of the Speech ReaLLM paper (arXiv 2406.09569) is of this family;
it processes each chunk together with 960 ms of right context, ours has its look-ahead in single layers.

A frame is `subsampling` hops of 10 ms (40 ms by default) and uses no audio after its own end, except through
the look-ahead of attention.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....audio import SAMPLE_RATE
from ....errors import UserError
from ...config import EncoderConfig
from ..layers.module_list import ModuleList
from . import Encoder, EncoderState
from .chunk_attention import ChunkAttention
from .features import HOP, PAST, LogMel

# about the mean and standard deviation of log-mel over speech, so that what enters is near N(0, 1)
MEL_MEAN, MEL_SCALE = -7.0, 4.0


class Subsampling(nn.Module):
    """Strided 2-d convolutions over time and frequency, causal in time: [B, T, bins] -> [B, T / factor, D].

    Each stage halves both; output t sees inputs 2t - 1, 2t and 2t + 1.
    """

    def __init__(self, bins: int, dim: int, factor: int):
        super().__init__()
        if factor not in (2, 4, 8):
            raise UserError("encoder.subsampling must be 2, 4 or 8")
        channels = max(8, dim // 4)
        # shape of a frame that enters each stage
        self.shapes: list[tuple[int, int]] = []
        self.convs = nn.ModuleList()
        incoming = 1
        for _ in range(factor.bit_length() - 1):
            self.shapes.append((incoming, bins))
            self.convs.append(nn.Conv2d(incoming, channels, 3, stride=2, padding=(0, 1)))
            incoming, bins = channels, (bins + 1) // 2
        self.out = nn.Linear(channels * bins, dim)

    def init_state(self, batch: int) -> EncoderState:
        """The last frame that entered each stage; zeros are the padding of the first."""
        return {f"frame{i}": torch.zeros(batch, c, 1, bins) for i, (c, bins) in enumerate(self.shapes)}

    def step(self, mel: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """mel [B, T, bins], T a multiple of the factor -> [B, T / factor, D], new state."""
        x, new = mel.unsqueeze(1), {}
        for i, conv in enumerate(self.convs):
            new[f"frame{i}"] = x[:, :, -1:]
            x = F.silu(conv(torch.cat((state[f"frame{i}"].to(x.dtype), x), dim=2)))
        return self.out(x.transpose(1, 2).flatten(2)), new

    def forward(self, mel: Tensor) -> Tensor:
        """mel [B, T, bins] -> [B, T / factor, D]"""
        return self.step(mel, {name: value.to(mel) for name, value in self.init_state(len(mel)).items()})[0]


class FeedForward(nn.Module):
    """Pre-norm feed-forward of a Conformer block. [..., D] -> [..., D]"""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, config.ffn)
        self.down = nn.Linear(config.ffn, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.dropout(F.silu(self.up(self.norm(x))))))


class Convolution(nn.Module):
    """Convolution module of a Conformer block: gate, depthwise convolution over time, LayerNorm, SiLU.

    Causal, unless the encoder is full-context: then it is centred.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.past = config.conv_kernel - 1
        self.pad = (self.past - self.past // 2, self.past // 2) if config.full_context else (self.past, 0)
        self.norm = nn.LayerNorm(config.dim)
        self.gate = nn.Linear(config.dim, 2 * config.dim)
        self.depthwise = nn.Conv1d(config.dim, config.dim, config.conv_kernel, groups=config.dim)
        self.inner_norm = nn.LayerNorm(config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def _gated(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Input of the convolution; zero, as padding is, for frames outside the stream."""
        x = F.glu(self.gate(self.norm(x)), dim=-1)
        return x if valid is None else torch.where(valid[..., None], x, torch.zeros_like(x))

    def _convolved(self, x: Tensor) -> Tensor:
        """x [B, past + T, D] -> [B, T, D]"""
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.out(F.silu(self.inner_norm(y))))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x [B, T, D], valid [B, T] bool -> [B, T, D]"""
        return self._convolved(F.pad(self._gated(x, valid), (0, 0, *self.pad)))

    def step(self, x: Tensor, valid: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, F, D], valid [B, 1] bool, past [B, kernel - 1, D] -> [B, F, D], new past."""
        window = torch.cat((past, self._gated(x, valid)), dim=1)
        return self._convolved(window), window[:, window.shape[1] - self.past :]


class Block(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(self, config: EncoderConfig, frames: int, lookahead: int):
        super().__init__()
        self.before = FeedForward(config)
        self.norm = nn.LayerNorm(config.dim)
        self.attention = ChunkAttention(
            config.dim, config.heads, frames, config.left_chunks, lookahead, config.rotary_fraction
        )
        self.dropout = nn.Dropout(config.dropout)
        self.convolution = Convolution(config)
        self.after = FeedForward(config)
        self.final_norm = nn.LayerNorm(config.dim)

    def finish(self, x: Tensor) -> Tensor:
        """What follows the convolution module. [..., D] -> [..., D]"""
        return self.final_norm(x + 0.5 * self.after(x))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, F, D] -> [B, C - lookahead, F, D]"""
        x = x + 0.5 * self.before(x)
        y = self.dropout(self.attention(self.norm(x)))
        x = x[:, : y.shape[1]] + y
        x = x + self.convolution(x.flatten(1, 2)).view_as(x)
        return self.finish(x)

    def forward_full(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, T, D], valid [B, T] bool -> [B, T, D]"""
        x = x + 0.5 * self.before(x)
        x = x + self.dropout(self.attention.forward_full(self.norm(x), valid))
        return self.finish(x + self.convolution(x, valid))

    def init_state(self, batch: int) -> EncoderState:
        state = self.attention.init_state(batch)
        if self.attention.lookahead:
            # the residual of the chunk whose attention waits for the next chunk
            state["residual"] = torch.zeros(batch, self.attention.frames_per_chunk, self.attention.dim)
        state["conv"] = torch.zeros(batch, self.convolution.past, self.attention.dim)
        return state

    def step(self, x: Tensor, index: Tensor, state: EncoderState) -> tuple[Tensor, Tensor, EncoderState]:
        """x [B, F, D] of chunk index [B] -> output, its chunk index, new state."""
        x = x + 0.5 * self.before(x)
        y, new = self.attention.step(self.norm(x), index, self.attention.rotation(index), state)
        if self.attention.lookahead:
            new["residual"] = x
            x, index = state["residual"], index - 1
        x = x + y
        y, new["conv"] = self.convolution.step(x, index[:, None] >= 0, state["conv"])
        return self.finish(x + y), index, new


class ConformerEncoder(Encoder):
    """See ARCHITECTURE.md, contract "Encoder"."""

    def __init__(self, config: EncoderConfig, chunk_ms: int = 240):
        """Raises UserError for a config that cannot be built."""
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.chunk_samples = SAMPLE_RATE * chunk_ms // 1000
        self.frame_samples = HOP * config.subsampling
        if self.chunk_samples % self.frame_samples:
            raise UserError(
                f"a chunk of {chunk_ms} ms is not a whole number of frames: change encoder.subsampling"
            )
        if config.left_chunks is None and not config.full_context:
            raise UserError("encoder.left_chunks must be a number, unless encoder.full_context is true")
        self.frames_per_chunk = self.chunk_samples // self.frame_samples
        self.lookahead_chunks = config.lookahead_chunks
        self.log_mel = LogMel(config.mel_bins)
        self.subsampling = Subsampling(config.mel_bins, config.dim, config.subsampling)
        self.dropout = nn.Dropout(config.dropout)
        ahead = config.lookahead + (0,) * (config.layers - len(config.lookahead))
        self.layers = ModuleList(Block(config, self.frames_per_chunk, a) for a in ahead)

    def _mel(self, audio: Tensor) -> Tensor:
        """audio [B, PAST + n] -> normalised log-mel [B, n / HOP, bins] float32."""
        return (self.log_mel(audio) - MEL_MEAN) / MEL_SCALE

    def forward(
        self,
        audio: Tensor,
        lengths: Tensor | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        delay: int = 0,
    ) -> Tensor:
        """audio [B, (C + A) * S] in [-1, 1] -> frames [B, C * F, D], A = lookahead_chunks, whatever the delay.

        `lengths` [B] (samples) is used by full-context encoders alone: frames beyond have no influence.
        `augment` masks the normalised log-mel [B, T, bins], whose mean is 0 (SpecAugment, in training).
        Raises ValueError when the audio is not whole chunks, or no more of them than the look-ahead.
        """
        chunks, rest = divmod(audio.shape[1], self.chunk_samples)
        if rest or chunks <= self.lookahead_chunks:
            raise ValueError(
                f"audio [B, {audio.shape[1]}]: expected more than {self.lookahead_chunks} "
                f"whole chunks of {self.chunk_samples} samples"
            )
        mel = self._mel(F.pad(audio, (PAST, 0)))
        x = self.dropout(self.subsampling(augment(mel) if augment else mel))
        if self.config.full_context:
            valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            if lengths is not None:
                frames = (lengths + self.frame_samples - 1) // self.frame_samples
                valid = torch.arange(x.shape[1], device=x.device)[None] < frames[:, None].to(x.device)
            for layer in self.layers:
                x = layer.forward_full(x, valid)
            return x
        x = x.unflatten(1, (chunks, self.frames_per_chunk))
        for layer in self.layers:
            x = layer(x)
        return x.flatten(1, 2)

    def init_state(self, batch: int) -> EncoderState:
        """All zeros. `chunk` counts the steps taken.

        Raises ValueError for a full-context encoder, which does not stream.
        """
        if self.config.full_context:
            raise ValueError("a full-context encoder has no streaming form")
        state = {"chunk": torch.zeros(batch, dtype=torch.int64), "audio": torch.zeros(batch, PAST)}
        for name, part in self._parts().items():
            state |= {f"{name}.{key}": value for key, value in part.init_state(batch).items()}
        return state

    def _parts(self) -> dict[str, Subsampling | Block]:
        """Modules with a state of their own, by the prefix of its names."""
        layers: dict[str, Subsampling | Block] = {f"layer{i}": layer for i, layer in enumerate(self.layers)}
        return {"subsampling": self.subsampling, **layers}

    def frame_offset(self, delay: int) -> int:
        """The frames come no later with a delay."""
        return 0

    @property
    def rings(self) -> tuple[str, ...]:
        """None: all of its state is replaced by a step."""
        return ()

    def advance(
        self, audio: Tensor, state: EncoderState, delay: Tensor | None = None
    ) -> tuple[Tensor, EncoderState]:
        """step(), for those that write rings themselves: here there are none."""
        return self.step(audio, state, delay)

    def step(
        self, audio: Tensor, state: EncoderState, delay: Tensor | None = None
    ) -> tuple[Tensor, EncoderState]:
        """audio [B, S] -> frames [B, F, D] of the chunk lookahead_chunks ago, whatever the delay, new state."""
        window, index = torch.cat((state["audio"], audio), dim=1), state["chunk"]
        new = {"chunk": index + 1, "audio": window[:, -PAST:]}
        x = self._mel(window)
        for name, part in self._parts().items():
            mine = {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
            if isinstance(part, Block):
                x, index, updated = part.step(x, index, mine)
            else:
                x, updated = part.step(x, mine)
            new |= {f"{name}.{key}": value for key, value in updated.items()}
        return x, new
