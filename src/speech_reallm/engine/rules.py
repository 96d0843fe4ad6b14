"""What greedy decoding does with the best symbol of a step: one set of rules for the runtime and for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecodingRules:
    """BLANK is forced after `max_pieces_per_chunk` pieces of a chunk, and where it has a piece `max_same_piece` times.

    A piece that is emitted again and again after one embedding is how a loop begins: nobody speaks so fast. The price
    of a `max_same_piece` of 1 is that words like "ba-n-n-er" are written one chunk later.
    """

    blank_id: int
    max_pieces_per_chunk: int
    max_same_piece: int = 1

    def choose(self, best: int, emitted: Sequence[int]) -> int:
        """The symbol to take where `best` has the highest probability and `emitted` are the chunk's pieces so far."""
        if len(emitted) >= self.max_pieces_per_chunk or emitted.count(best) >= self.max_same_piece:
            return self.blank_id
        return best
