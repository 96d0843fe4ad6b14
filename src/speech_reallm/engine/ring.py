"""Which slot of the decoder's cache a step goes into. No torch here: the engine asks too."""

from __future__ import annotations

from typing import Any


def ring_slot(position: Any, size: int, reads: bool) -> Any:
    """The slot of `position` (number, array or tensor) in a ring of `size`, for a reading decoder at least 2.

    A reading decoder never forgets its first step: the published ones lean on the beginning of the text, and lose words
    once it is gone (attention sinks, Xiao et al., ICLR 2024). The others take turns in the slots that are left.
    """
    if not reads:
        return position % size
    return (1 + (position - 1) % (size - 1)) * (position > 0)
