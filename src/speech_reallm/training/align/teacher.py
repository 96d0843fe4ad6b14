"""What finds when the pieces of a known text are spoken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from lhotse.supervision import AlignmentItem

from ...tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignedText:
    """The pieces of a text with their times in seconds, and the mean log probability of a frame."""

    pieces: list[AlignmentItem]
    score: float


class AlignmentTeacher(Protocol):
    """Aligns texts to audio."""

    # a part file made by another identity is not resumed
    identity: dict[str, Any]
    tokenizer: Tokenizer
    # what is done to a manifest's text first
    clean: Callable[[str], str]
    # whether the scores mean anything
    scored: bool

    def align(self, audio: Sequence[np.ndarray], texts: Sequence[str]) -> list[AlignedText | None]:
        """audio: float32 [N], 16 kHz each; texts: cleaned. None where a text does not fit into its audio."""
