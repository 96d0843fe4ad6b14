import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.training.align.viterbi import ctc_viterbi, span_scores

BLANK = 1


def collapse(path):
    """(token, start, end) of each token of a CTC path."""
    runs, t = [], 0
    for token, group in itertools.groupby(path):
        n = len(list(group))
        if token != BLANK:
            runs.append((token, t, t + n))
        t += n
    return runs


def brute_force(log_probs, text):
    """Best (score, runs) over all paths that spell the text, or None."""
    frames, vocab = log_probs.shape
    best = None
    for path in itertools.product(range(vocab), repeat=frames):
        runs = collapse(path)
        if [r[0] for r in runs] == text:
            score = sum(float(log_probs[t, v]) for t, v in enumerate(path))
            if best is None or score > best[0]:
                best = (score, runs)
    return best


def align(log_probs, text):
    targets = torch.tensor([text], dtype=torch.int64).reshape(1, -1)
    lengths = torch.tensor([len(log_probs)]), torch.tensor([len(text)])
    return ctc_viterbi(log_probs[None], lengths[0], targets, lengths[1], BLANK)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    frames=st.integers(0, 6),
    text=st.lists(st.sampled_from([0, 2, 3]), max_size=4),
)
def test_equals_brute_force(seed, frames, text):
    noise = torch.randn(frames, 4, generator=torch.Generator().manual_seed(seed)) * 2
    log_probs = noise.log_softmax(-1)
    starts, ends, scores = align(log_probs, text)
    truth = brute_force(log_probs, text)
    if truth is None:
        assert scores.item() == float("-inf")
        assert (starts == -1).all() and (ends == -1).all()
        return
    assert scores.item() == pytest.approx(truth[0], abs=1e-4)
    assert list(zip(text, starts[0].tolist(), ends[0].tolist(), strict=True)) == truth[1]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 5))
def test_a_batch_equals_its_rows(seed, rows):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 30, (rows,), generator=g)
    sizes = torch.randint(0, 8, (rows,), generator=g)
    log_probs = (torch.randn(rows, 30, 5, generator=g) * 3).log_softmax(-1)
    # what lies in the padding, blanks too, must not matter
    targets = torch.randint(0, 5, (rows, 8), generator=g)
    for row, size in zip(targets, sizes, strict=True):
        row[:size][row[:size] == BLANK] = 4
    batch = ctc_viterbi(log_probs, lengths, targets, sizes, BLANK)
    for b in range(rows):
        single = align(log_probs[b, : lengths[b]], targets[b, : sizes[b]].tolist())
        assert torch.equal(batch.starts[b, : sizes[b]], single.starts[0])
        assert torch.equal(batch.ends[b, : sizes[b]], single.ends[0])
        assert torch.allclose(batch.scores[b], single.scores[0])
        assert (batch.starts[b, sizes[b] :] == -1).all() and (batch.ends[b, sizes[b] :] == -1).all()


def test_equal_neighbours_need_a_blank_between():
    log_probs = torch.full((5, 4), -5.0)
    log_probs[:, 2] = -0.1
    starts, ends, _ = align(log_probs, [2, 2])
    assert ends[0, 0] < starts[0, 1]
    # two frames hold two different tokens, but not the same one twice
    assert align(log_probs[:2], [2, 3]).scores > float("-inf")
    assert align(log_probs[:2], [2, 2]).scores == float("-inf")
    assert align(log_probs[:3], [2, 2]).scores > float("-inf")


def test_a_long_clear_path_is_found():
    truth = [(2, 10, 12), (3, 12, 13), (3, 40, 44), (0, 300, 310)]
    log_probs = torch.full((400, 4), -8.0)
    log_probs[:, BLANK] = -0.01
    for token, start, end in truth:
        log_probs[start:end, BLANK] = -8.0
        log_probs[start:end, token] = -0.01
    spans = align(log_probs, [t for t, _, _ in truth])
    assert list(zip(spans.starts[0].tolist(), spans.ends[0].tolist(), strict=True)) == [t[1:] for t in truth]
    scores = span_scores(log_probs[None], torch.tensor([[2, 3, 3, 0]]), spans)
    assert torch.allclose(scores, torch.full((1, 4), -0.01))


def test_impossible_log_probabilities_do_not_fit():
    log_probs = torch.zeros(6, 4)
    log_probs[:, 2] = float("-inf")
    spans = align(log_probs, [2])
    assert spans.scores.item() == float("-inf") and spans.starts.item() == -1
    assert not span_scores(log_probs[None], torch.tensor([[2]]), spans).isnan().any()


def test_wrong_arguments():
    log_probs = torch.zeros(1, 3, 4)
    one = torch.tensor([1])
    with pytest.raises(ValueError, match="blank"):
        ctc_viterbi(log_probs, torch.tensor([3]), torch.tensor([[BLANK]]), one, BLANK)
    with pytest.raises(ValueError, match="lengths"):
        ctc_viterbi(log_probs, torch.tensor([4]), torch.tensor([[2]]), one, BLANK)
