"""The model at work in ONNX Runtime: `Engine` and the state of its streams."""

from .engine import MAX_STATE_BYTES, Decoded, Engine, State

__all__ = ["MAX_STATE_BYTES", "Decoded", "Engine", "State"]
