"""A published language model as the paper's decoder: embeddings stand between its pieces, BLANK is added to these."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import ModelConfig
from ..layers.norm import RMSNorm
from .interleaving import InterleavingDecoder


class SharedEmbedding(nn.Module):
    """Embeddings that are the rows of the output layer as they are. Has no weights of its own."""

    def __init__(self, head: nn.Linear):
        super().__init__()
        # in a tuple, so that the output layer is not registered (and saved) a second time
        self._head = (head,)

    def forward(self, pieces: Tensor) -> Tensor:
        """pieces [...] int64 -> embeddings [..., D]"""
        return F.embedding(pieces, self._head[0].weight)


class HeadWithBlank(nn.Module):
    """The published output layer, and BLANK, which has a row of its own and is the last id."""

    def __init__(self, dim: int, pieces: int):
        super().__init__()
        self.pieces = nn.Linear(dim, pieces, bias=False)
        self.blank = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., V], V = pieces + 1"""
        return torch.cat((self.pieces(x), self.blank(x)), -1)


class PretrainedDecoder(InterleavingDecoder):
    """An interleaving decoder with the weights of a Llama-style language model. See Decoder.

    The published weights are a part of `init`; what is new is the stacker, the label delays and BLANK's row.
    """

    def __init__(self, config: ModelConfig):
        decoder = config.decoder
        super().__init__(
            dataclasses.replace(config, decoder=dataclasses.replace(decoder, tie_embeddings=True))
        )
        self.config = decoder
        head = HeadWithBlank(decoder.dim, config.vocab_size - 1)
        self.head = head
        if decoder.tie_embeddings:
            self.embed = SharedEmbedding(head.pieces)
        else:
            self.embed = nn.Embedding(config.vocab_size - 1, decoder.dim)
        for module in self.modules():
            if isinstance(module, RMSNorm):
                module.eps = decoder.norm_eps
        nn.init.zeros_(head.blank.weight)
        nn.init.zeros_(head.blank.bias)
