"""ReaLLM to ONNX: one graph for a chunk of audio, one for a decoder step (docs/model-folder.md)."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...extras import install_command
from ...modelfolder import BLOCK_ENCODER, WIDE_ENCODER
from ..config import ModelConfig
from ..model.reallm import ReaLLM

OPSET = 18
Packed = dict[str, Tensor] | None


class EncoderGraph(nn.Module):
    """(audio [1, S], delay [1], *state) -> (embedding [1, W], *what the decoder takes of the frames, *new state)

    Of rings, the new state is what is to be written into them.
    """

    def __init__(self, model: ReaLLM):
        super().__init__()
        self.model = model
        state = model.encoder.init_state(1)
        self.names = list(state)
        rings = set(model.encoder.rings)
        self.inputs = [f"{'ring' if name in rings else 'state'}.{name}" for name in state]
        frames = torch.zeros(1, model.encoder.frames_per_chunk, model.encoder.dim)
        self.frame_outputs = list(model.decoder.frame_outputs(frames))

    def forward(self, audio: Tensor, delay: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        frames, new = self.model.encoder.advance(audio, dict(zip(self.names, state, strict=True)), delay)
        embedding = self.model.embed_speech(frames, delay)[:, 0]
        return embedding, *self.model.decoder.frame_outputs(frames).values(), *(new[n] for n in self.names)


class BlockGraph(nn.Module):
    """(audio [1, C * S], inside [1, C], delay [1]) -> (embeddings [1, C, W], *what the decoder takes of the frames)

    C may be any number of chunks.
    """

    def __init__(self, model: ReaLLM):
        super().__init__()
        assert model.block_encoder is not None
        self.model, self.encoder = model, model.block_encoder

    def forward(self, audio: Tensor, inside: Tensor, delay: Tensor) -> tuple[Tensor, ...]:
        frames = self.encoder.block(audio, inside)
        embeddings = self.model.embed_speech(frames, delay)
        return embeddings, *self.model.decoder.frame_outputs(frames).values()


class DecoderGraph(nn.Module):
    """A decoder step: the inputs of Decoder.graph_inputs(), in order -> (log_probs [1, V], *new keys and values)"""

    def __init__(self, model: ReaLLM):
        super().__init__()
        self.decoder = model.decoder
        self.inputs = list(model.decoder.graph_inputs())
        self.cache = [name for name in self.inputs if name.startswith("cache.")]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        log_probs, new = self.decoder.step(dict(zip(self.inputs, inputs, strict=True)))
        return log_probs, *(new[name.removeprefix("cache.")] for name in self.cache)


def encoder_graphs(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The graphs of the encoder and the label delays that each is for.

    Delays above the default may take more right context. A graph of their own spares the others that computation.
    """
    most = len(config.encoder.right_context) - 1
    wide = tuple(d for d in config.delays if d > config.default_delay and most > config.default_delay)
    if not wide:
        return {"encoder.onnx": config.delays}
    return {"encoder.onnx": tuple(d for d in config.delays if d not in wide), WIDE_ENCODER: wide}


def export_graphs(model: ReaLLM, folder: Path, packed: Packed = None) -> None:
    """Write the graphs of the encoder (see encoder_graphs) and decoder.onnx, for one stream at a time, in float32.

    With `packed`, what model.safetensors in the same folder holds (model/packing.py), matrices are 8-bit and lie there.
    Raises UserError when onnx is missing.
    """
    try:
        import onnx  # noqa: F401 - torch says so with twenty lines more
    except ImportError:
        raise UserError(f"export needs onnx: {install_command('onnx')}") from None
    model = model.eval().float().cpu()
    delay = torch.zeros(1, dtype=torch.int64)
    for name, delays in encoder_graphs(model.config).items():
        narrowed = _narrowed(model, max(delays))
        encoder, state = EncoderGraph(narrowed), narrowed.encoder.init_state(1)
        outputs = ["embedding", *encoder.frame_outputs, *(f"new_{name}" for name in encoder.inputs)]
        audio = torch.zeros(1, model.config.chunk_samples)
        arguments = (audio, delay, *state.values())
        _export(encoder, arguments, folder / name, ["audio", "delay", *encoder.inputs], outputs, packed)
    if model.config.file_blocks:
        _export_blocks(model, folder / BLOCK_ENCODER, packed)
    decoder, example = DecoderGraph(model), model.decoder.graph_inputs()
    outputs = ["log_probs", *(f"new_{name}" for name in decoder.cache)]
    _export(decoder, tuple(example.values()), folder / "decoder.onnx", decoder.inputs, outputs, packed)


def _export_blocks(model: ReaLLM, path: Path, packed: Packed) -> None:
    chunks = 3
    frames = torch.zeros(1, model.encoder.frames_per_chunk, model.encoder.dim)
    outputs = ["embedding", *model.decoder.frame_outputs(frames)]
    arguments = (
        torch.zeros(1, chunks * model.config.chunk_samples),
        torch.ones(1, chunks),
        torch.zeros(1, dtype=torch.int64),
    )
    free = {"audio": {1: "samples"}, "inside": {1: "chunks"}}
    _export(BlockGraph(model), arguments, path, ["audio", "inside", "delay"], outputs, packed, free)


def _narrowed(model: ReaLLM, delay: int) -> ReaLLM:
    """The model with no more right context than label delays up to `delay` use; its weights are shared."""
    config = model.config
    right = config.encoder.right_context[: delay + 1]
    if right == config.encoder.right_context:
        return model
    encoder = dataclasses.replace(config.encoder, right_context=right)
    narrowed = ReaLLM(dataclasses.replace(config, encoder=encoder))
    narrowed.load_state_dict(model.state_dict())
    return narrowed.eval()


def _export(
    graph: nn.Module,
    arguments: tuple,
    path: Path,
    inputs: list[str],
    outputs: list[str],
    packed: Packed,
    free: dict[str, dict[int, str]] | None = None,
) -> None:
    """free: names of the dimensions that differ from call to call, by input."""
    plain = path.with_suffix(".float.onnx") if packed else path
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(), arguments, str(plain), input_names=inputs, output_names=outputs, opset_version=OPSET,
            custom_opsets={"com.microsoft": 1}, dynamic_axes=free, dynamo=False,
        )  # fmt: skip
    if packed:
        from .shared_weights import SharedWeights, share

        share(plain, path, SharedWeights(path.with_name("model.safetensors"), packed))
        plain.unlink()
