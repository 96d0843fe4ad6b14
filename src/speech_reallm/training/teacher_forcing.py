"""What the decoder is fed in training instead of the right pieces, against exposure bias."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# ids below are control symbols
FIRST_PIECE = 4


def random_pieces(pieces: Tensor, prob: float, vocab_size: int) -> Tensor:
    """Pieces [B, T] (-1: an embedding), each replaced by a random one with probability `prob`."""
    hit = (torch.rand(pieces.shape, device=pieces.device) < prob) & (pieces >= 0)
    return torch.where(hit, torch.randint_like(pieces, FIRST_PIECE, vocab_size), pieces)


@torch.no_grad()
def scheduled_sampling(pieces: Tensor, logits: Tensor, prob: float) -> Tensor:
    """Pieces [B, T], each replaced with probability `prob` by a draw from the model's prediction, BLANK left out.

    logits [B, T, V]: of the model fed the right pieces. Scheduled sampling in two passes (Mihaylova and Martins, ACL
    2019 student workshop): the model's own mistakes come up where it is in doubt, and it learns to go on after them.
    """
    logits = logits.clone()
    logits[..., :FIRST_PIECE] = -torch.inf
    # a draw from the softmax is the maximum of the logits with Gumbel noise
    drawn = (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)
    drawn = F.pad(drawn[:, :-1], (1, 0))
    hit = (torch.rand(drawn.shape, device=drawn.device) < prob) & (pieces >= 0)
    return torch.where(hit, drawn, pieces)
