"""Log-mel filterbank features as defined by Kaldi, for streams.

80 bins, windows of 25 ms every 10 ms, 20 Hz to 8 kHz; mean removal, pre-emphasis 0.97, Povey window, power
spectrum of 512 points, no dither (Povey et al., "The Kaldi speech recognition toolkit", 2011). Samples are
in [-1, 1], so Kaldi's floor lies where 16-bit audio has its rounding noise.

A window ends where its hop ends: the stream is padded on its left by the 15 ms that a window is longer than
a hop, and frame t uses no sample at or after (t + 1) * 160. Everything before the power spectrum is linear
and the same for all windows, so it is one matrix: nothing but matrix products to export.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....audio import SAMPLE_RATE

HOP = 160
WINDOW = 400
# samples before a stretch of audio that its first window reaches back to
PAST = WINDOW - HOP
FFT = 512
LOW_HZ = 20.0
PREEMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps
# windows are put together from pieces of this size, which divides both hop and window
PIECE = 80


class LogMel(nn.Module):
    """Waveform with its left context -> log-mel frames. Always float32, also under autocast."""

    spectrum: Tensor
    filters: Tensor

    def __init__(self, bins: int = 80):
        super().__init__()
        self.bins = bins
        # constants, not weights: they are recomputed, not saved
        self.register_buffer("spectrum", spectrum_matrix().float(), persistent=False)
        self.register_buffer("filters", mel_filters(bins).float(), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """audio [B, PAST + T * HOP] in [-1, 1] -> [B, T, bins] float32.

        Raises ValueError when the length is not of that form.
        """
        if (audio.shape[1] - PAST) % HOP:
            raise ValueError(f"audio of {audio.shape[1]} samples is not {PAST} + a multiple of {HOP}")
        if torch.is_autocast_enabled(audio.device.type):
            with torch.autocast(audio.device.type, enabled=False):
                return self._log_mel(audio.float())
        return self._log_mel(audio.float())

    def _log_mel(self, audio: Tensor) -> Tensor:
        frames = (audio.shape[1] - PAST) // HOP
        pieces = audio.unflatten(1, (-1, PIECE))
        span = (frames - 1) * (HOP // PIECE) + 1
        windows = torch.cat([pieces[:, i : i + span : HOP // PIECE] for i in range(WINDOW // PIECE)], dim=-1)
        real, imaginary = (windows @ self.spectrum).chunk(2, dim=-1)
        return torch.log(((real.square() + imaginary.square()) @ self.filters).clamp(min=FLOOR))


def spectrum_matrix() -> Tensor:
    """From a window of samples to its spectrum, [400, 512] float64: 256 real parts, then 256 imaginary parts.

    The Nyquist frequency is left out: no mel filter reaches it.
    """
    n = torch.arange(WINDOW, dtype=torch.float64)
    identity = torch.eye(WINDOW, dtype=torch.float64)
    remove_mean = identity - 1 / WINDOW
    # y[n] = x[n] - 0.97 x[n - 1]; the first sample stands for the one before it, too
    emphasise = identity - PREEMPHASIS * torch.diag(torch.ones(WINDOW - 1, dtype=torch.float64), 1)
    emphasise[0, 0] -= PREEMPHASIS
    povey = (0.5 - 0.5 * torch.cos(2 * torch.pi * n / (WINDOW - 1))) ** 0.85
    angle = 2 * torch.pi / FFT * n[:, None] * torch.arange(FFT // 2, dtype=torch.float64)
    fourier = torch.cat((torch.cos(angle), -torch.sin(angle)), dim=1)
    return remove_mean @ emphasise @ (povey[:, None] * fourier)


def mel_filters(bins: int) -> Tensor:
    """Triangles that overlap by half, equally wide on the mel scale: [256, bins] float64."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    low, high = mel(torch.tensor([LOW_HZ, SAMPLE_RATE / 2], dtype=torch.float64))
    edges = low + (high - low) * torch.arange(bins + 2, dtype=torch.float64) / (bins + 1)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    points = mel(torch.arange(FFT // 2, dtype=torch.float64) * (SAMPLE_RATE / FFT))[:, None]
    return torch.minimum((points - left) / (centre - left), (right - points) / (right - centre)).clamp(min=0)
