"""Configuration: frozen, keyword-only dataclasses, documented where they are defined, and a strict YAML reader."""

from .data import AugmentConfig, DataConfig
from .model import BlockConfig, CTCConfig, DecoderConfig, EncoderConfig, ModelConfig
from .optimiser import OptimConfig
from .reader import build, merge, to_dict
from .run import RunConfig

__all__ = [
    "AugmentConfig",
    "BlockConfig",
    "CTCConfig",
    "DataConfig",
    "DecoderConfig",
    "EncoderConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "build",
    "merge",
    "to_dict",
]
