"""The two encoders behind one interface (ARCHITECTURE.md, contract "Encoder")."""

from __future__ import annotations

from torch import nn

from ...config import EncoderConfig


def build_encoder(config: EncoderConfig, chunk_ms: int) -> nn.Module:
    """The encoder that the configuration names."""
    if config.kind == "waveform":
        from .waveform import WaveformEncoder

        return WaveformEncoder(config, chunk_ms)
    from .conformer import ConformerEncoder

    return ConformerEncoder(config, chunk_ms)
