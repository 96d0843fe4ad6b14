"""ReaLLM to ONNX: one graph for a chunk of audio, one for a micro-step (ARCHITECTURE.md, "Model folder")."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..model.reallm import ReaLLM, State

OPSET = 18


class EncoderGraph(nn.Module):
    """(audio [B, S], delay [B], *state) -> (embedding [B, W], frames [B, F, E] if they are read, *new state)"""

    def __init__(self, model: ReaLLM):
        super().__init__()
        self.model = model
        self.names = list(model.encoder.init_state(1))

    def forward(self, audio: Tensor, delay: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        frames, new = self.model.encoder.step(audio, dict(zip(self.names, state, strict=True)))
        embedding = self.model.embed_speech(frames, delay)[:, 0]
        return embedding, *((frames,) if self.model.reads else ()), *(new[n] for n in self.names)


class DecoderGraph(nn.Module):
    """A micro-step: (embedding [B, W], piece [B], position [B], cache.k, cache.v, and of a reading decoder chunk [B] and
    frames [B, N * F, E]) -> (log_probs [B, V], new.k, new.v)"""

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
        frames: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        state = State(
            encoder={}, cache_k=cache_k, cache_v=cache_v, position=position, frames=frames, chunk=chunk
        )
        return self.model.step(embedding, piece, state)


def export_graphs(model: ReaLLM, folder: Path, int8: bool = True) -> None:
    """Write encoder.onnx and decoder.onnx; with int8, matrices are 8-bit."""
    model = model.eval().float().cpu()
    encoder, batch = EncoderGraph(model), 2
    state = model.init_state(batch)
    reads = ["frames"] if model.reads else []
    inputs = ["audio", "delay", *(f"state.{n}" for n in encoder.names)]
    outputs = ["embedding", *reads, *(f"new_state.{n}" for n in encoder.names)]
    audio = torch.zeros(batch, model.config.chunk_samples)
    one = torch.ones(batch, dtype=torch.int64)
    _export(encoder, (audio, one - 1, *state.encoder.values()), folder / "encoder.onnx", inputs, outputs, int8)
    arguments = [torch.zeros(batch, model.decoder.dim), one, one + 3, state.cache_k, state.cache_v]
    inputs = ["embedding", "piece", "position", "cache.k", "cache.v"]
    if model.reads:
        arguments += [one, state.frames]
        inputs += ["chunk", "frames"]
    outputs = ["log_probs", "new.k", "new.v"]
    _export(DecoderGraph(model), tuple(arguments), folder / "decoder.onnx", inputs, outputs, int8)


def _export(
    graph: nn.Module, arguments: tuple, path: Path, inputs: list[str], outputs: list[str], int8: bool
) -> None:
    plain = path.with_suffix(".float.onnx") if int8 else path
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(), arguments, str(plain), input_names=inputs, output_names=outputs, opset_version=OPSET,
            dynamic_axes={n: {0: "batch"} for n in inputs + outputs}, dynamo=False,
        )  # fmt: skip
    if int8:
        _quantize(plain, path)
        plain.unlink()


def _quantize(source: Path, target: Path) -> None:
    """Matrices to 8 bits in blocks of 64, symmetric; inputs are quantised row by row as they come.

    Unlike dynamic quantisation, which takes one scale for a whole batch, no stream's result depends on its neighbours.
    """
    try:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    except ImportError:
        raise UserError("quantisation needs onnx and onnx_ir: pip install 'speech-reallm[train]'") from None
    graph = onnx.load(str(source))
    # the spectrum spans too wide a range for 8 bits
    spectral = [n.name for n in graph.graph.node if "log_mel" in n.name]
    logging.disable(logging.INFO)
    try:
        quantizer = MatMulNBitsQuantizer(
            graph, bits=8, block_size=64, is_symmetric=True, accuracy_level=4, nodes_to_exclude=spectral
        )
        quantizer.process()
    finally:
        logging.disable(logging.NOTSET)
    quantizer.model.save_model_to_file(str(target), False)
