"""Decoders behind one interface; build_decoder is the only place in training that asks for the kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...config import ModelConfig

# named tensors, batch first; the names are those of the graph's inputs
DecoderState = dict[str, Tensor]
# new keys and values of a step, by layer
Update = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """An interleaving: pieces [B, T], -1 for an embedding; indices of chunks [B, T], -1 for a piece."""

    pieces: Tensor
    chunks: Tensor


class Decoder(nn.Module, ABC):
    """speech [B, C, W]: one embedding per chunk; frames [B, C * F, E]; path: pieces and chunk indices [B, T]."""

    # an answer depends on the text and the chunk, and not on the path that led there
    path_independent: bool
    # embeddings come to published weights as something new, and begin as zeros
    zero_speech_at_start: bool
    dim: int

    @abstractmethod
    def forward(self, speech: Tensor, frames: Tensor, path: Path) -> Tensor:
        """Logits [B, T, V]."""

    @abstractmethod
    def text_logits(self, pieces: Tensor) -> Tensor:
        """Logits [B, T, V] for text alone, pieces [B, T], without speech."""

    def converted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A model's weights by names, those of another kind of decoder as this kind's where it can begin with them."""
        return weights

    @abstractmethod
    def init_state(self, batch: int) -> DecoderState:
        """The state at the start of `batch` streams: zeros but for the first piece."""

    @abstractmethod
    def frame_outputs(self, frames: Tensor) -> dict[str, Tensor]:
        """What the encoder's graph makes of a chunk's frames [B, F, E] for the decoder, by names of the state."""

    @abstractmethod
    def next_chunk(
        self, state: DecoderState, rows: Tensor, chunk: Tensor, embedding: Tensor, frames: Tensor
    ) -> None:
        """The streams `rows` [R] go on to chunk [R]: its index, its embedding [R, W], its frames [R, F, E]."""

    @abstractmethod
    def step(self, state: DecoderState) -> tuple[Tensor, Update]:
        """One decoder step of all streams: log-probabilities [B, V], and what commit() takes in."""

    @abstractmethod
    def commit(self, state: DecoderState, rows: Tensor, piece: Tensor, update: Update) -> None:
        """The streams `rows` [R] emitted piece [R], which may be BLANK; `update` is of the whole batch."""

    @abstractmethod
    def graph_inputs(self, batch: int = 1) -> DecoderState:
        """An example of each input of the decoder's graph, by its name, in order."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The decoder's own entries of config.json."""


def build_decoder(config: ModelConfig, frame_dim: int, frames_per_chunk: int) -> Decoder:
    """The Decoder that `model.decoder.kind` names; the encoder makes frames_per_chunk frames [frame_dim] of a chunk."""
    if config.decoder.kind == "cross-attention":
        from .cross_attention import CrossAttentionDecoder

        return CrossAttentionDecoder(config, frame_dim, frames_per_chunk)
    if config.decoder.kind == "joint-attention":
        from .joint_attention import JointAttentionDecoder

        return JointAttentionDecoder(config, frame_dim, frames_per_chunk)
    if config.decoder.kind == "transducer":
        from .transducer import TransducerDecoder

        return TransducerDecoder(config)
    if config.decoder.kind == "pretrained":
        from .pretrained import PretrainedDecoder

        return PretrainedDecoder(config)
    from .interleaving import InterleavingDecoder

    return InterleavingDecoder(config)
