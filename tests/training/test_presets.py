"""Presets have the sizes they promise, and stream."""

from __future__ import annotations

import pytest
import torch

from speech_reallm.training.config import ModelConfig, build, to_dict
from speech_reallm.training.config.presets import PRESETS
from speech_reallm.training.model.reallm import ReaLLM


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_being_written_and_read(name: str) -> None:
    assert build(ModelConfig, to_dict(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize("name, expected, tolerance", [("paper-80m", 80e6, 0.03), ("small", 6e6, 0.1)])
def test_preset_parameter_count(name: str, expected: float, tolerance: float) -> None:
    with torch.device("meta"):
        model = ReaLLM(PRESETS[name])
    count = sum(p.numel() for p in model.parameters())
    assert abs(count - expected) <= tolerance * expected


def test_paper_80m_has_the_look_ahead_and_depth_of_the_paper() -> None:
    config = PRESETS["paper-80m"]
    assert config.encoder.lookahead_chunks * config.chunk_ms == 960
    assert (config.encoder.layers, config.decoder.layers, config.chunk_ms) == (20, 2, 240)


def test_debug_preset_is_tiny_and_its_encoder_steps() -> None:
    model = ReaLLM(PRESETS["debug"])
    assert sum(p.numel() for p in model.parameters()) < 100_000
    frames, _ = model.encoder.step(torch.zeros(2, model.encoder.chunk_samples), model.encoder.init_state(2))
    assert frames.shape == (2, 6, 32)
