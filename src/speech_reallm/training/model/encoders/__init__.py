"""Encoders behind one interface; build_encoder is the only place that asks for the kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ...config import EncoderConfig

# named tensors, batch first; the names are those of the graph's inputs
EncoderState = dict[str, Tensor]


class Encoder(nn.Module, ABC):
    """From audio at 16 kHz to frames (ARCHITECTURE.md, contract "Encoder").

    dim: width of a frame. chunk_samples: S, audio of a chunk. frames_per_chunk: F. lookahead_chunks: A, chunks of
    audio after a chunk that its frames wait for.
    """

    config: EncoderConfig
    dim: int
    chunk_samples: int
    frames_per_chunk: int
    lookahead_chunks: int

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return self.chunk_samples // self.frames_per_chunk

    @abstractmethod
    def forward(
        self,
        audio: Tensor,
        lengths: Tensor | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        delay: int = 0,
    ) -> Tensor:
        """audio [B, (C + A) * S] in [-1, 1] -> frames [B, C * F, D] of streams with this label delay, in chunks."""

    @abstractmethod
    def init_state(self, batch: int) -> EncoderState:
        """The state at the start of `batch` streams: zeros."""

    @abstractmethod
    def step(
        self, audio: Tensor, state: EncoderState, delay: Tensor | None = None
    ) -> tuple[Tensor, EncoderState]:
        """One chunk: audio [B, S], delay [B] (0 for None) -> frames [B, F, D], new state."""

    @abstractmethod
    def advance(
        self, audio: Tensor, state: EncoderState, delay: Tensor | None = None
    ) -> tuple[Tensor, EncoderState]:
        """step(), but of the rings only what is to be written into them."""

    @property
    @abstractmethod
    def rings(self) -> Sequence[str]:
        """Names of the state that advance() does not replace, but writes one slot of."""

    @abstractmethod
    def frame_offset(self, delay: int) -> int:
        """Chunks by which the frames come later with this label delay than without."""


def build_encoder(config: EncoderConfig, chunk_ms: int) -> Encoder:
    """The encoder that the configuration names."""
    if config.kind == "waveform":
        from .waveform import WaveformEncoder

        return WaveformEncoder(config, chunk_ms)
    from .conformer import ConformerEncoder

    return ConformerEncoder(config, chunk_ms)
