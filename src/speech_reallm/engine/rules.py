"""What greedy decoding does with the best symbol of a step: one set of rules for the runtime and for training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecodingRules:
    """BLANK is forced after `max_pieces_per_chunk` pieces of a chunk, and in the place of a piece that it has already.

    A piece that is emitted a second time after one embedding is how a loop begins: nobody speaks so fast. The price is
    that words like "ba-n-n-er" are written one chunk later.
    """

    blank_id: int
    max_pieces_per_chunk: int

    def choose(self, best: int, emitted: Collection[int]) -> int:
        """The symbol to take where `best` has the highest probability and `emitted` are the chunk's pieces so far."""
        if len(emitted) >= self.max_pieces_per_chunk or best in emitted:
            return self.blank_id
        return best
