"""From the frames of a chunk to one embedding for the decoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Stacker(nn.Module):
    """Concatenates the F frames of a chunk and projects them to the decoder's width."""

    def __init__(self, frames_per_chunk: int, dim: int, out: int):
        super().__init__()
        self.frames_per_chunk = frames_per_chunk
        self.stack = nn.Linear(frames_per_chunk * dim, out)
        self.project = nn.Linear(out, out)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, C * F, D] -> [B, C, out]. One chunk at a time gives the same: it has no state."""
        return self.project(F.silu(self.stack(frames.unflatten(1, (-1, self.frames_per_chunk)).flatten(2))))
