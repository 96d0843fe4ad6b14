"""Greedy streaming decoding from encoder frames, by the runtime's rules, for use in training."""

from __future__ import annotations

import torch
from torch import Tensor

from ...engine.rules import DecodingRules
from .reallm import ReaLLM


@torch.no_grad()
def greedy(model: ReaLLM, frames: Tensor, lengths: Tensor, delay: Tensor) -> list[list[int]]:
    """The pieces of each row of a batch.

    frames [B, C * F, D]; lengths [B]: chunks to decode, the flush included; delay [B]: label delay in chunks.
    """
    decoder, per = model.decoder, model.encoder.frames_per_chunk
    config = model.config
    rules = DecodingRules(config.blank_id, config.max_pieces_per_chunk, config.max_same_piece_per_chunk)
    speech = model.embed_speech(frames, delay).float()
    by_chunk = frames.float().unflatten(1, (-1, per))
    state = decoder.init_state(len(frames))
    rows, chunk = torch.arange(len(frames)), torch.zeros(len(frames), dtype=torch.int64)
    result: list[list[int]] = [[] for _ in rows]
    # after the current embedding
    emitted: list[list[int]] = [[] for _ in rows]
    moved = rows[chunk < lengths]
    while len(active := rows[chunk < lengths]):
        if len(moved):
            decoder.next_chunk(
                state, moved, chunk[moved], speech[moved, chunk[moved]], by_chunk[moved, chunk[moved]]
            )
        log_probs, update = decoder.step(state)
        best = log_probs.argmax(-1)
        for row in active.tolist():
            symbol = rules.choose(int(best[row]), emitted[row])
            best[row] = symbol
            if symbol == rules.blank_id:
                emitted[row] = []
                chunk[row] += 1
            else:
                emitted[row].append(symbol)
                result[row].append(symbol)
        decoder.commit(state, active, best[active], update)
        moved = active[(best[active] == rules.blank_id) & (chunk[active] < lengths[active])]
    return result
