"""The transducer loss equals the sum over all alignments, one by one, and its gradient is that of the sum."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speech_reallm.training.objectives.transducer import transducer_loss

BLANK = 2


def by_enumeration(logits: Tensor, pieces: list[int]) -> Tensor:
    """Minus the log-likelihood of the pieces, alignment by alignment. logits [T, U + 1, V]"""
    log_probs = logits.log_softmax(-1)
    steps = len(log_probs)
    ways = []
    # of the steps before the last BLANK, those that emit a piece
    for emitting in combinations(range(steps - 1 + len(pieces)), len(pieces)):
        t = u = 0
        total = torch.zeros((), dtype=logits.dtype)
        for step in range(steps - 1 + len(pieces)):
            symbol = pieces[u] if step in emitting else BLANK
            total = total + log_probs[t, u, symbol]
            t, u = (t, u + 1) if step in emitting else (t + 1, u)
        assert (t, u) == (steps - 1, len(pieces))
        ways.append(total + log_probs[t, u, BLANK])
    return -torch.stack(ways).logsumexp(0)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999), scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_equals_the_enumeration_of_all_alignments(data: st.DataObject, seed: int, scale: float) -> None:
    """Rows of different lengths in one batch; gradients, too, and those beyond a row's lengths are zero."""
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    pieces = [data.draw(st.lists(st.sampled_from([0, 1, 3, 4]), max_size=3)) for _ in lengths]
    torch.manual_seed(seed)
    width = max(map(len, pieces))
    logits = torch.randn(len(lengths), max(lengths), width + 1, 5, dtype=torch.float64) * scale
    logits.requires_grad_()
    padded = torch.tensor([p + [-1] * (width - len(p)) for p in pieces], dtype=torch.int64)
    found = transducer_loss(
        logits,
        padded.reshape(len(pieces), width),
        torch.tensor(lengths),
        torch.tensor([len(p) for p in pieces]),
        BLANK,
    )
    expected = torch.stack(
        [by_enumeration(logits[i, : lengths[i], : len(p) + 1], p) for i, p in enumerate(pieces)]
    )
    torch.testing.assert_close(found, expected)
    weights = torch.rand(len(lengths), dtype=torch.float64)
    (ours,) = torch.autograd.grad((found * weights).sum(), logits)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(ours, theirs)


def test_gradient_by_finite_differences() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    arguments = (torch.tensor([[1, 3], [0, -1]]), torch.tensor([3, 2]), torch.tensor([2, 1]), BLANK)
    assert torch.autograd.gradcheck(lambda x: transducer_loss(x, *arguments), logits)


def test_one_embedding_and_no_pieces() -> None:
    """Then there is one alignment: BLANK."""
    logits = torch.randn(1, 1, 1, 4)
    nothing = torch.zeros(1, 0, dtype=torch.int64)
    found = transducer_loss(logits, nothing, torch.tensor([1]), torch.tensor([0]), BLANK)
    torch.testing.assert_close(found, -logits.log_softmax(-1)[:, 0, 0, BLANK])


def test_a_long_lattice_in_single_precision() -> None:
    """Thousands of symbols of a probability near zero stay finite, and equal double precision."""
    torch.manual_seed(0)
    logits = torch.randn(1, 150, 61, 6) * 8
    pieces = torch.randint(3, 6, (1, 60))
    lengths = torch.tensor([150]), torch.tensor([60])
    single = transducer_loss(logits.requires_grad_(), pieces, *lengths, BLANK)
    double = transducer_loss(logits.detach().double(), pieces, *lengths, BLANK)
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(single.sum(), logits)
    assert gradient.isfinite().all()
    # one symbol leaves each node: what enters the softmax sums to zero
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(1, 150, 61), atol=1e-4, rtol=0)


@pytest.mark.parametrize("length, pieces", [(0, 1), (4, 1), (3, 3), (3, -1)])
def test_lengths_that_do_not_fit_are_refused(length: int, pieces: int) -> None:
    with pytest.raises(ValueError, match="lengths must be from"):
        transducer_loss(
            torch.zeros(1, 3, 3, 4),
            torch.zeros(1, 2, dtype=torch.int64),
            torch.tensor([length]),
            torch.tensor([pieces]),
            BLANK,
        )
