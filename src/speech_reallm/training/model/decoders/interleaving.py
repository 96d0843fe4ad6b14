"""The paper's decoder: embeddings and pieces are the positions of one sequence (Seide et al., Interspeech 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ....engine.ring import ring_slot
from ....errors import UserError
from ...config import ModelConfig
from . import Decoder, DecoderState, Path, Update
from .llama import LlamaStack, cache_of, write_past

# in the place of a piece: the input of this step is the embedding
EMBEDDING = -1


class InterleavingDecoder(LlamaStack, Decoder):
    """A step takes a piece or an embedding, and every step is committed. See Decoder."""

    path_independent = False
    zero_speech_at_start = False

    def __init__(self, config: ModelConfig):
        """Raises UserError for settings that only a decoder with a count of chunks can use."""
        if config.blank_bias:
            raise UserError(
                "model.blank_bias: an interleaving decoder has no count of chunks since the last piece"
            )
        super().__init__(config.decoder, config.vocab_size)

    def forward(self, speech: Tensor, frames: Tensor, path: Path) -> Tensor:
        index = path.chunks.clamp(min=0)[..., None].expand(-1, -1, speech.shape[-1])
        embeddings = speech.gather(1, index)
        text = self.embed(path.pieces.clamp(min=0)).to(embeddings.dtype)
        return self.logits(torch.where((path.pieces >= 0)[..., None], text, embeddings))

    def init_state(self, batch: int) -> DecoderState:
        return {
            "embedding": torch.zeros(batch, self.dim),
            "piece": torch.full((batch,), EMBEDDING),
            "position": torch.zeros(batch, dtype=torch.int64),
            **self.init_cache(batch),
        }

    def next_chunk(
        self, state: DecoderState, rows: Tensor, chunk: Tensor, embedding: Tensor, frames: Tensor
    ) -> None:
        state["embedding"][rows] = embedding
        state["piece"][rows] = EMBEDDING

    def step(self, state: DecoderState) -> tuple[Tensor, Update]:
        piece = state["piece"]
        x = torch.where((piece >= 0)[:, None], self.embed(piece.clamp(min=0)), state["embedding"])
        logits, new = self.step_logits(x, state["position"], cache_of(state))
        return torch.log_softmax(logits.float(), -1), new

    def commit(self, state: DecoderState, rows: Tensor, piece: Tensor, update: Update) -> None:
        write_past(state, rows, ring_slot(state["position"][rows], self.window - 1), update)
        # BLANK is never fed: the embedding of the next chunk takes its place
        state["piece"][rows] = piece

    def frame_outputs(self, frames: Tensor) -> dict[str, Tensor]:
        return {}

    def graph_inputs(self, batch: int = 1) -> DecoderState:
        return self.init_state(batch)

    def describe(self) -> dict[str, Any]:
        return {"frame_chunks": 0}
