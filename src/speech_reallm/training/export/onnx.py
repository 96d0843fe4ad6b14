"""ReaLLM to ONNX: one graph for a chunk of audio, one for a micro-step (ARCHITECTURE.md, "Model folder")."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...extras import install_command
from ...modelfolder import WIDE_ENCODER
from ..config import ModelConfig
from ..model.reallm import ReaLLM, State

OPSET = 18
Packed = dict[str, Tensor] | None


class EncoderGraph(nn.Module):
    """(audio [B, S], delay [B], *state) -> (embedding [B, W], frames [B, F, E] if they are read, *new state)"""

    def __init__(self, model: ReaLLM):
        super().__init__()
        self.model = model
        self.names = list(model.encoder.init_state(1))

    def forward(self, audio: Tensor, delay: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        frames, new = self.model.encoder.step(audio, dict(zip(self.names, state, strict=True)), delay)
        embedding = self.model.embed_speech(frames, delay)[:, 0]
        return embedding, *((frames,) if self.model.reads else ()), *(new[n] for n in self.names)


class DecoderGraph(nn.Module):
    """A micro-step: (embedding [B, W], piece [B], position [B], cache.k, cache.v) -> (log_probs [B, V], new.k, new.v)

    A reading decoder takes chunk and waited [B] and frames [B, N * F, E] besides.
    """

    def __init__(self, model: ReaLLM):
        super().__init__()
        self.model = model

    def forward(
        self,
        embedding: Tensor,
        piece: Tensor,
        position: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        chunk: Tensor | None = None,
        waited: Tensor | None = None,
        frames: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        state = State(
            encoder={},
            cache_k=cache_k,
            cache_v=cache_v,
            position=position,
            frames=frames,
            chunk=chunk,
            waited=waited,
        )
        return self.model.step(embedding, piece, state)


def encoder_graphs(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The graphs of the encoder and the label delays that each is for.

    Delays above the default may take more right context. A graph of their own spares the others that computation.
    """
    right = config.encoder.delayed_chunks
    wide = tuple(d for d in config.delays if d > config.default_delay and right > config.default_delay)
    if not wide:
        return {"encoder.onnx": config.delays}
    return {"encoder.onnx": tuple(d for d in config.delays if d not in wide), WIDE_ENCODER: wide}


def export_graphs(model: ReaLLM, folder: Path, packed: Packed = None) -> None:
    """Write the graphs of the encoder (see encoder_graphs) and decoder.onnx, in float32.

    With `packed`, what model.safetensors in the same folder holds (model/packing.py), matrices are 8-bit and lie there.
    Raises UserError when onnx is missing.
    """
    try:
        import onnx  # noqa: F401 - torch says so with twenty lines more
    except ImportError:
        raise UserError(f"export needs onnx: {install_command('onnx')}") from None
    model = model.eval().float().cpu()
    batch = 2
    one = torch.ones(batch, dtype=torch.int64)
    for name, delays in encoder_graphs(model.config).items():
        narrowed = _narrowed(model, max(delays))
        encoder, state = EncoderGraph(narrowed), narrowed.encoder.init_state(batch)
        reads = ["frames"] if model.reads else []
        inputs = ["audio", "delay", *(f"state.{n}" for n in encoder.names)]
        outputs = ["embedding", *reads, *(f"new_state.{n}" for n in encoder.names)]
        audio = torch.zeros(batch, model.config.chunk_samples)
        _export(encoder, (audio, one - 1, *state.values()), folder / name, inputs, outputs, packed)
    state = model.init_state(batch)
    arguments = [torch.zeros(batch, model.decoder.dim), one, one + 3, state.cache_k, state.cache_v]
    inputs = ["embedding", "piece", "position", "cache.k", "cache.v"]
    if model.reads:
        arguments += [one, one, state.frames]
        inputs += ["chunk", "waited", "frames"]
    outputs = ["log_probs", "new.k", "new.v"]
    _export(DecoderGraph(model), tuple(arguments), folder / "decoder.onnx", inputs, outputs, packed)


def _narrowed(model: ReaLLM, delay: int) -> ReaLLM:
    """The model with no more right context than label delays up to `delay` use; its weights are shared."""
    config = model.config
    right = min(config.encoder.delayed_chunks, delay)
    if right == config.encoder.delayed_chunks:
        return model
    encoder = dataclasses.replace(config.encoder, delayed_chunks=right)
    narrowed = ReaLLM(dataclasses.replace(config, encoder=encoder))
    narrowed.load_state_dict(model.state_dict())
    return narrowed.eval()


def _export(
    graph: nn.Module, arguments: tuple, path: Path, inputs: list[str], outputs: list[str], packed: Packed
) -> None:
    plain = path.with_suffix(".float.onnx") if packed else path
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(), arguments, str(plain), input_names=inputs, output_names=outputs, opset_version=OPSET,
            dynamic_axes={n: {0: "batch"} for n in inputs + outputs}, dynamo=False,
        )  # fmt: skip
    if packed:
        from .shared_weights import SharedWeights, share

        share(plain, path, SharedWeights(path.with_name("model.safetensors"), packed))
        plain.unlink()
