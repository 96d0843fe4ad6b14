"""ReaLLM to ONNX: one graph for a chunk of audio, one for a micro-step (ARCHITECTURE.md, "Model folder")."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..model.reallm import ReaLLM

OPSET = 18


class EncoderGraph(nn.Module):
    """(audio [B, S], delay [B], *state) -> (embedding [B, W], *new state)"""

    def __init__(self, model: ReaLLM):
        super().__init__()
        self.model = model
        self.names = list(model.encoder.init_state(1))

    def forward(self, audio: Tensor, delay: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        frames, new = self.model.encoder.step(audio, dict(zip(self.names, state, strict=True)))
        return self.model.embed_speech(frames, delay)[:, 0], *(new[n] for n in self.names)


class DecoderGraph(nn.Module):
    """(embedding [B, W], piece [B], position [B], cache.k, cache.v) -> (log_probs [B, V], new.k, new.v)"""

    def __init__(self, model: ReaLLM):
        super().__init__()
        self.model = model

    def forward(
        self, embedding: Tensor, piece: Tensor, position: Tensor, cache_k: Tensor, cache_v: Tensor
    ) -> tuple[Tensor, ...]:
        decoder = self.model.decoder
        x = torch.where((piece >= 0)[:, None], decoder.embed(piece.clamp(min=0)), embedding)
        logits, k, v = decoder.step(x, position, cache_k, cache_v)
        return torch.log_softmax(logits, -1), k, v


def export_graphs(model: ReaLLM, folder: Path, int8: bool = True) -> None:
    """Write encoder.onnx and decoder.onnx; with int8, matrices are 8-bit."""
    model = model.eval().float().cpu()
    encoder, batch = EncoderGraph(model), 2
    state = model.encoder.init_state(batch)
    inputs = ["audio", "delay", *(f"state.{n}" for n in encoder.names)]
    outputs = ["embedding", *(f"new_state.{n}" for n in encoder.names)]
    audio = torch.zeros(batch, model.config.chunk_samples)
    delay = torch.zeros(batch, dtype=torch.int64)
    _export(encoder, (audio, delay, *state.values()), folder / "encoder.onnx", inputs, outputs, int8)
    cache_k, cache_v = model.decoder.init_cache(batch)
    arguments = (torch.zeros(batch, model.decoder.dim), delay - 1, delay + 3, cache_k, cache_v)
    inputs = ["embedding", "piece", "position", "cache.k", "cache.v"]
    _export(
        DecoderGraph(model), arguments, folder / "decoder.onnx", inputs, ["log_probs", "new.k", "new.v"], int8
    )


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
