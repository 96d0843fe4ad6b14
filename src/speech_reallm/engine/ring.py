"""Slots of the ring buffers of a decoder's past; `position` may be a number, a numpy array or a torch tensor."""

from __future__ import annotations

from typing import Any


def ring_slot(position: Any, size: int) -> Any:
    """The slot of step `position` in a ring of `size`: the newest step takes the place of the oldest."""
    return position % size


def sink_ring_slot(position: Any, size: int) -> Any:
    """The slot where the first step keeps slot 0 for good and the others take turns in the rest; `size` is at least 2.

    Published decoders attend to the beginning of the text, and lose words once it is gone: it is an attention sink
    (Xiao et al., ICLR 2024).
    """
    return (1 + (position - 1) % (size - 1)) * (position > 0)
