"""Interleaving of speech and text, and back. Pure functions on integers; no model.

The decoder's sequence is `e_0 [pieces] e_1 [pieces] ...`. The target at each position is the next symbol, BLANK
where the next input is an embedding, and BLANK at the last position. (Seide et al., Interspeech 2024, section 2.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Integers = Sequence[int] | np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Interleaved:
    """What the decoder takes and should predict; int64 arrays [T].

    pieces: the piece at each position, -1 where the input is an embedding.
    chunks: the embedding's number at each position, -1 where the input is a piece.
    targets: the symbol to predict.
    soft_label_mask: where the target is the piece after the last one of the path, so that a distillation teacher
        that has seen the text so far may be asked, bool [T].
    """

    pieces: np.ndarray
    chunks: np.ndarray
    targets: np.ndarray
    soft_label_mask: np.ndarray


def place(end_chunks: Integers, n_chunks: int, delay: int, cap: int) -> list[int]:
    """The embedding after which each piece is placed.

    end_chunks [U]: the chunk in which each piece's audio ends. Placement is at end + delay, in order, at most `cap`
    pieces after one embedding: what is too many moves on. There are n_chunks + delay embeddings. Raises ValueError
        when
    the pieces do not fit.
    """
    placed: list[int] = []
    current, used = 0, 0
    last = n_chunks + delay - 1
    if len(end_chunks) > cap * (last + 1):
        raise ValueError(f"{len(end_chunks)} pieces do not fit into {last + 1} chunks of at most {cap}")
    for number, end in enumerate(end_chunks):
        # never so late that the remaining ones would not fit
        latest = last - (len(end_chunks) - 1 - number) // cap
        wanted = min(max(int(end), 0) + delay, latest)
        if wanted > current:
            current, used = wanted, 0
        elif used == cap:
            current, used = current + 1, 0
        placed.append(current)
        used += 1
    return placed


def interleave(
    pieces: Integers, end_chunks: Integers, n_chunks: int, delay: int, blank: int, cap: int = 16
) -> Interleaved:
    """From pieces [U] and the chunks in which they end to the decoder's sequence of n_chunks + delay + U positions."""
    where = np.asarray(place(end_chunks, n_chunks, delay, cap), dtype=np.int64)
    embeddings = n_chunks + delay
    # a piece stands behind its embedding and all embeddings and pieces before
    position = where + 1 + np.arange(len(where))
    length = embeddings + len(where)
    tokens = np.full(length, -1, np.int64)
    tokens[position] = np.asarray(pieces, dtype=np.int64)
    chunks = np.full(length, -1, np.int64)
    chunks[tokens < 0] = np.arange(embeddings)
    targets = np.full(length, blank, np.int64)
    targets[:-1] = np.where(tokens[1:] >= 0, tokens[1:], blank)
    return Interleaved(pieces=tokens, chunks=chunks, targets=targets, soft_label_mask=targets != blank)


def deinterleave(targets: Integers, blank: int) -> tuple[list[int], list[int]]:
    """From a sequence of predictions to (pieces, the embedding after which each stands): each BLANK moves on by one."""
    pieces, where, chunk = [], [], 0
    for symbol in targets:
        if symbol == blank:
            chunk += 1
        else:
            pieces.append(int(symbol))
            where.append(chunk)
    return pieces, where
