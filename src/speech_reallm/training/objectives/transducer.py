"""The transducer loss: all alignments of pieces to embeddings at once (Graves, arXiv 1211.3711).

Exact, in log space, an anti-diagonal of the lattice at a time, with the gradient in closed form. A node (t, u) is "u
pieces emitted, embedding t"; BLANK leads to (t + 1, u), piece u + 1 to (t, u + 1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import ModelOutput


def transducer_loss(
    logits: Tensor, pieces: Tensor, lengths: Tensor, piece_lengths: Tensor, blank_id: int
) -> Tensor:
    """Minus the log-likelihood of each row's pieces, summed over all of their alignments: [B].

    logits [B, T, U + 1, V] before the softmax; pieces [B, U], padding of any value; lengths [B] of 1 to T embeddings;
    piece_lengths [B] of 0 to U pieces. Memory for a training step is about three times that of the logits. Raises
    ValueError for shapes and lengths that do not go together.
    """
    batch, steps, nodes, _ = logits.shape
    if pieces.shape != (batch, nodes - 1):
        raise ValueError(f"pieces {list(pieces.shape)} for logits {list(logits.shape)}: expected [B, U]")
    if int(lengths.min()) < 1 or int(lengths.max()) > steps:
        raise ValueError(f"lengths must be from 1 to {steps}")
    if int(piece_lengths.min()) < 0 or int(piece_lengths.max()) >= nodes:
        raise ValueError(f"piece_lengths must be from 0 to {nodes - 1}")
    where = logits.device
    loss: Tensor = _TransducerLoss.apply(
        logits, pieces.to(where), lengths.to(where), piece_lengths.to(where), blank_id
    )
    return loss


class TransducerLoss:
    """Between logits [B, T, U + 1, V], of output.lengths [B], and batch.pieces [B, U], of batch.piece_lengths [B]."""

    name = "transducer"

    def __init__(self, weight: float = 1.0, *, blank_id: int):
        self.weight, self.blank_id = weight, blank_id

    def __call__(self, output: ModelOutput, batch: Any) -> Tensor:
        assert output.logits is not None and output.lengths is not None
        return transducer_loss(
            output.logits, batch.pieces, output.lengths, batch.piece_lengths, self.blank_id
        ).sum()


class _TransducerLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, logits: Tensor, pieces: Tensor, lengths: Tensor, piece_lengths: Tensor, blank_id: int
    ) -> Tensor:
        # the softmax is never kept: the backward pass makes it again from its normaliser
        normaliser = logits.logsumexp(-1)
        labels = F.pad(pieces.clamp(min=0, max=logits.shape[-1] - 1), (0, 1))[:, None].expand(
            -1, logits.shape[1], -1
        )
        # of the nodes within the lattice of each row
        u = torch.arange(logits.shape[2], device=logits.device)
        inside = torch.arange(logits.shape[1], device=logits.device)[None, :, None] < lengths[:, None, None]
        never = torch.full_like(normaliser, -torch.inf)
        blank = torch.where(
            inside & (u <= piece_lengths[:, None, None]), logits[..., blank_id] - normaliser, never
        )
        label = torch.where(
            inside & (u < piece_lengths[:, None, None]),
            logits.gather(-1, labels[..., None]).squeeze(-1) - normaliser,
            never,
        )
        blank, label = _skewed(blank), _skewed(label)
        before = _forward_variables(blank, label)
        after = _backward_variables(blank, label, lengths + piece_lengths, piece_lengths)
        likelihood = after[:, 0, 0]
        # posterior probability of each arc
        known = before - likelihood[:, None, None]
        by_blank = _straight((known + blank + after[:, 1:]).exp(), logits.shape[1])
        by_label = _straight(
            (known + label + F.pad(after[:, 1:, 1:], (0, 1), value=-torch.inf)).exp(), logits.shape[1]
        )
        context.save_for_backward(logits, normaliser, labels, by_blank, by_label)
        context.blank_id = blank_id
        return -likelihood

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, normaliser, labels, by_blank, by_label = context.saved_tensors
        scale = gradients[0][:, None, None]
        result = (logits - normaliser[..., None]).exp_().mul_(((by_blank + by_label) * scale)[..., None])
        result[..., context.blank_id] -= by_blank * scale
        result.scatter_add_(-1, labels[..., None], (by_label * -scale)[..., None])
        return result, None, None, None, None


def _skewed(nodes: Tensor) -> Tensor:
    """By anti-diagonals: [B, T, U + 1] -> [B, T + U, U + 1], place (t + u, u) for node (t, u), -inf for none."""
    batch, steps, width = nodes.shape
    diagonals = torch.arange(steps + width - 1, device=nodes.device)[:, None]
    t = diagonals - torch.arange(width, device=nodes.device)
    found = nodes.gather(1, t.clamp(0, steps - 1).expand(batch, -1, -1))
    return torch.where((t >= 0) & (t < steps), found, -torch.inf)


def _straight(skewed: Tensor, steps: int) -> Tensor:
    """The inverse of _skewed."""
    batch, _, width = skewed.shape
    places = torch.arange(steps, device=skewed.device)[:, None] + torch.arange(width, device=skewed.device)
    return skewed.gather(1, places.expand(batch, -1, -1))


def _forward_variables(blank: Tensor, label: Tensor) -> Tensor:
    """Log-probability of all ways from the first node to each; skewed, [B, T + U, U + 1]."""
    result = torch.full_like(blank, -torch.inf)
    result[:, 0, 0] = 0.0
    for n in range(1, blank.shape[1]):
        by_blank, emitted = result[:, n - 1] + blank[:, n - 1], result[:, n - 1] + label[:, n - 1]
        result[:, n] = torch.logaddexp(by_blank, F.pad(emitted[:, :-1], (1, 0), value=-torch.inf))
    return result


def _backward_variables(blank: Tensor, label: Tensor, ends: Tensor, piece_lengths: Tensor) -> Tensor:
    """Log-probability of all ways from each node to the end; skewed, an anti-diagonal more: [B, T + U + 1, U + 1].

    ends [B]: the anti-diagonal of the end, which the last BLANK leads to, at place piece_lengths [B] of it.
    """
    batch, size, width = blank.shape
    result = blank.new_full((batch, size + 1, width), -torch.inf)
    is_end = F.one_hot(piece_lengths, width).bool()
    for n in range(size, -1, -1):
        if n < size:
            by_blank = result[:, n + 1] + blank[:, n]
            emitted = F.pad(result[:, n + 1, 1:], (0, 1), value=-torch.inf) + label[:, n]
            result[:, n] = torch.logaddexp(by_blank, emitted)
        result[:, n] = torch.where(is_end & (ends == n)[:, None], 0.0, result[:, n])
    return result
