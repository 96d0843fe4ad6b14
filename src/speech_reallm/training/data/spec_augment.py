"""SpecAugment on frames (Park et al., Interspeech 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import AugmentConfig


class SpecAugment:
    """Masks stretches of frames and bands of features (Park et al., Interspeech 2019). x [B, T, D] -> same."""

    def __init__(self, config: AugmentConfig):
        self.config = config

    def __bool__(self) -> bool:
        return bool(self.config.time_masks or self.config.time_mask_share or self.config.feature_masks)

    def __call__(self, x: Tensor) -> Tensor:
        config = self.config
        batch, frames, dims = x.shape
        keep = torch.ones(batch, frames, dims, dtype=torch.bool, device=x.device)
        time_masks = config.time_masks
        if config.time_mask_share:
            # a mask is half as wide as the widest one on average
            time_masks = round(frames * config.time_mask_share * 2 / config.time_mask_frames)
        for masks, widest, size, axis in (
            (time_masks, config.time_mask_frames, frames, 1),
            (config.feature_masks, config.feature_mask_bins, dims, 2),
        ):
            place = torch.arange(size, device=x.device)[None]
            for _ in range(masks):
                width = torch.randint(0, widest + 1, (batch, 1), device=x.device)
                start = (torch.rand(batch, 1, device=x.device) * (size - width + 1).clamp(min=1)).long()
                hit = (place >= start) & (place < start + width)
                keep &= ~hit.unsqueeze(3 - axis)
        return x * keep
