"""The model at work in ONNX Runtime: `Engine` and the state of its streams."""

from .engine import Decoded, Engine, StreamState

__all__ = ["Decoded", "Engine", "StreamState"]
