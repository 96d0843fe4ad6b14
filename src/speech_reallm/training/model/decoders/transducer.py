"""A transducer's decoder: prediction network and joint network (Graves, arXiv 1211.3711).

It takes the same embedding per chunk as the paper's decoder, so that the two differ in the decoder and the loss alone.
The prediction network is an LSTM over the pieces; the joint network adds what it gives to the embedding, both
projected, and predicts the next piece or BLANK after a tanh.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....errors import UserError
from ....tokenizer import START
from ...config import ModelConfig
from . import Decoder, DecoderState, Path, Update


class TransducerDecoder(Decoder):
    """A step takes the last piece, the LSTM's state before it, and the current embedding. See Decoder.

    Only a step that emitted a piece is committed, so an answer depends on the text and the chunk alone.
    """

    path_independent = True
    zero_speech_at_start = False

    def __init__(self, config: ModelConfig):
        """Raises UserError for settings that a transducer has no use for."""
        super().__init__()
        decoder = config.decoder
        if config.blank_bias:
            raise UserError("model.blank_bias: a transducer has no count of chunks since the last piece")
        if decoder.tie_embeddings:
            raise UserError("decoder.tie_embeddings: a transducer's two ends are different networks")
        self.dim, self.layers, self.blank_id = decoder.dim, decoder.layers, config.blank_id
        self.embed = nn.Embedding(config.vocab_size, self.dim)
        self.lstm = nn.LSTM(self.dim, self.dim, decoder.layers, batch_first=True)
        self.dropout = nn.Dropout(decoder.dropout)
        self.text = nn.Linear(self.dim, self.dim)
        self.speech = nn.Linear(self.dim, self.dim, bias=False)
        self.head = nn.Linear(self.dim, config.vocab_size)

    def _join(self, text: Tensor, speech: Tensor) -> Tensor:
        """Both [..., W], of shapes that broadcast -> logits [..., V]"""
        logits: Tensor = self.head(torch.tanh(self.text(text) + self.speech(speech)))
        return logits

    def _after_text(self, pieces: Tensor) -> Tensor:
        """What the prediction network gives after each of <s> and pieces [B, U] -> [B, U + 1, W]"""
        x = self.embed(F.pad(pieces.clamp(min=0), (1, 0), value=START))
        return self.dropout(self.lstm(self.dropout(x))[0])

    def lattice_logits(self, speech: Tensor, pieces: Tensor) -> Tensor:
        """For the transducer loss: speech [B, C, W], pieces [B, U], padding of any value -> [B, C, U + 1, V]."""
        return self._join(self._after_text(pieces)[:, None], speech[:, :, None])

    def forward(self, speech: Tensor, frames: Tensor, path: Path) -> Tensor:
        is_piece = path.pieces >= 0
        # the pieces first, in order; then for each position what follows as many as there are up to it
        order = is_piece.int().argsort(dim=1, descending=True, stable=True)
        text = self._after_text(path.pieces.gather(1, order))
        text = text.gather(1, is_piece.cumsum(1)[..., None].expand(-1, -1, self.dim))
        chunk = path.chunks.cummax(1).values.clamp(min=0)
        return self._join(text, speech.gather(1, chunk[..., None].expand(-1, -1, self.dim)))

    def text_logits(self, pieces: Tensor) -> Tensor:
        # what follows each of the pieces, <s> not among them
        text = self._after_text(pieces)[:, 1:]
        return self._join(text, torch.zeros_like(text))

    def init_state(self, batch: int) -> DecoderState:
        return {
            "embedding": torch.zeros(batch, self.dim),
            "piece": torch.full((batch,), START),
            **{
                f"cache.{i}.{name}": torch.zeros(batch, self.dim) for i in range(self.layers) for name in "hc"
            },
        }

    def frame_outputs(self, frames: Tensor) -> dict[str, Tensor]:
        return {}

    def next_chunk(
        self, state: DecoderState, rows: Tensor, chunk: Tensor, embedding: Tensor, frames: Tensor
    ) -> None:
        state["embedding"][rows] = embedding

    def step(self, state: DecoderState) -> tuple[Tensor, Update]:
        x = self.embed(state["piece"])
        new: Update = {}
        for i in range(self.layers):
            x, cell = self._advance(i, x, state[f"cache.{i}.h"], state[f"cache.{i}.c"])
            new |= {f"{i}.h": x, f"{i}.c": cell}
        return torch.log_softmax(self._join(x, state["embedding"]).float(), -1), new

    def _advance(self, layer: int, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """One step of a layer of the LSTM: x, hidden and cell [B, W] -> hidden and cell after it."""
        weight = {
            name: getattr(self.lstm, f"{name}_l{layer}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        gates = F.linear(x, weight["weight_ih"], weight["bias_ih"])
        gates = gates + F.linear(hidden, weight["weight_hh"], weight["bias_hh"])
        into, forget, new, out = gates.chunk(4, -1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(cell), cell

    def commit(self, state: DecoderState, rows: Tensor, piece: Tensor, update: Update) -> None:
        emitted = piece != self.blank_id
        rows, piece = rows[emitted], piece[emitted]
        for name, value in update.items():
            state[f"cache.{name}"][rows] = value[rows].float()
        state["piece"][rows] = piece

    def graph_inputs(self, batch: int = 1) -> DecoderState:
        return self.init_state(batch)

    def describe(self) -> dict[str, Any]:
        return {"decoder": "transducer", "frame_chunks": 0}
