"""CTC forced alignment: the most probable path through a known text (Viterbi), for a batch at once.

A CTC path gives every frame a token of the text or blank; a token may last several frames, blanks may come
anywhere, and between two equal tokens a blank must come (Graves et al., ICML 2006). The states are blank,
token 0, blank, token 1, ..., blank; from a state a path stays, goes to the next or, from one token to a
different one, skips the blank between.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_NEVER = float("-inf")


class Spans(NamedTuple):
    """Where each token of a text lies: frames starts[b, u] <= t < ends[b, u].

    starts, ends: int64 [B, U], -1 beyond the text and for a row that does not fit. scores: float32 [B], the
    log probability of the path (the sum over all frames, blanks included); -inf for a row that does not
    fit, that is, where the frames are fewer than the tokens and the blanks between equal neighbours.
    """

    starts: Tensor
    ends: Tensor
    scores: Tensor


@torch.no_grad()
def ctc_viterbi(
    log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int
) -> Spans:
    """Align texts to CTC outputs.

    log_probs: [B, T, V]. lengths: int [B], frames of each row. targets: int [B, U], no blanks; what lies
    beyond target_lengths (int [B]) is ignored. Raises ValueError for lengths out of range and for blanks in
    a text.
    """
    rows, frames, _ = log_probs.shape
    device = log_probs.device
    lengths, target_lengths = lengths.to(device), target_lengths.to(device)
    if (lengths > frames).any() or (target_lengths > targets.shape[1]).any():
        raise ValueError("lengths exceed the tensors")
    inside = torch.arange(targets.shape[1], device=device) < target_lengths[:, None]
    if (inside & (targets == blank)).any():
        raise ValueError("targets contain blank")
    targets = torch.where(inside, targets, blank)
    best, came_from = _best_steps(log_probs, lengths, targets, blank)
    # a path ends in the last token or in the blank after it
    last_blank = 2 * target_lengths[:, None]
    finals = torch.cat([last_blank, (last_blank - 1).clamp(min=0)], dim=1)
    scores, which = best.gather(1, finals).max(dim=1)
    fits = (scores > _NEVER) & ((lengths > 0) | (target_lengths == 0))
    state = finals.gather(1, which[:, None])
    # back through time; state 2u + 1 is token u
    starts = torch.full_like(targets, -1, dtype=torch.int64)
    ends = torch.full_like(starts, -1)
    row = torch.arange(rows, device=device)
    for t in range(frames - 1, -1, -1):
        s = state[:, 0]
        here = (t < lengths) & fits & (s % 2 == 1)
        r, u = row[here], s[here] // 2
        starts[r, u] = t
        ends[r, u] = torch.where(ends[r, u] < 0, t + 1, ends[r, u])
        back = came_from[t].gather(1, state).long()
        state = torch.where((t < lengths)[:, None], state - back, state)
    return Spans(starts, ends, torch.where(fits, scores, _NEVER))


def _best_steps(log_probs: Tensor, lengths: Tensor, targets: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Forward through time: the best score of each state [B, S] at each row's end, and where its best path came from.

    That is how many states back its predecessor lies, uint8 [T, B, S]: 0, 1 or 2.
    """
    rows, frames, _ = log_probs.shape
    labels = targets.new_full((rows, 2 * targets.shape[1] + 1), blank)
    labels[:, 1::2] = targets
    # skipping the blank is for a token unlike the one before
    may_skip = torch.zeros_like(labels, dtype=torch.bool)
    may_skip[:, 3::2] = targets[:, 1:] != targets[:, :-1]
    emissions = log_probs.float().gather(2, labels[:, None, :].expand(-1, frames, -1))
    never = emissions.new_full((rows, 2), _NEVER)
    best = emissions.new_full(labels.shape, _NEVER)
    came_from = torch.zeros((frames, *labels.shape), dtype=torch.uint8, device=labels.device)
    for t in range(frames):
        if t == 0:
            new = torch.full_like(best, _NEVER)
            new[:, :2] = emissions[:, 0, :2]
        else:
            padded = torch.cat([never, best], dim=1)
            skip = torch.where(may_skip, padded[:, :-2], _NEVER)
            new, came_from[t] = torch.stack([best, padded[:, 1:-1], skip]).max(dim=0)
            new = new + emissions[:, t]
        best = torch.where((t < lengths)[:, None], new, best)
    # no frames at all: the empty text fits, with probability one
    best[:, 0] = torch.where(lengths == 0, 0.0, best[:, 0])
    return best, came_from


def span_scores(log_probs: Tensor, targets: Tensor, spans: Spans) -> Tensor:
    """Mean log probability of each token over its frames; 0 where there is no span.

    log_probs [B, T, V], targets [B, U] -> [B, U]
    """
    sums = log_probs.float().gather(2, targets.clamp(min=0)[:, None, :].expand(-1, log_probs.shape[1], -1))
    frame = torch.arange(log_probs.shape[1], device=log_probs.device)[None, :, None]
    inside = (frame >= spans.starts[:, None]) & (frame < spans.ends[:, None])
    return torch.where(inside, sums, 0.0).sum(dim=1) / (spans.ends - spans.starts).clamp(min=1)
