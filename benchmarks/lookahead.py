"""What look-ahead costs per chunk, two ways.

Per layer (ours): a layer with look-ahead waits one chunk; nothing is computed twice.
Recomputed (block processing, as in the Speech ReaLLM paper, arXiv 2406.09569): each step takes a chunk and
all of its look-ahead through all layers, and keeps only what belongs to the chunk.

    python benchmarks/lookahead.py [--preset small] [--streams 1] [--chunks 100] [--torch]

Both run in onnxruntime, as recognition does, on one thread; measured is the CPU time of that thread. Features
and subsampling are computed once a chunk in both.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from speech_reallm.training.config.presets import PRESETS
from speech_reallm.training.model.encoders import EncoderState
from speech_reallm.training.model.encoders.conformer import Block, ConformerEncoder
from speech_reallm.training.model.layers.rotary import rotary, rotate


class Recomputing(nn.Module):
    """Streams a ConformerEncoder that has no look-ahead of its own, with `ahead` chunks of right context.

    For speed only: the past is taken to be full from the start.
    """

    def __init__(self, model: ConformerEncoder, ahead: int):
        super().__init__()
        self.model, self.ahead = model, ahead
        self.chunk_samples = model.chunk_samples

    def init_state(self, batch: int) -> EncoderState:
        state = self.model.init_state(batch)
        del state["chunk"]
        # frames between the chunk that is computed and the one that comes in
        if self.ahead:
            state["pending"] = torch.zeros(batch, self.ahead * self.model.frames_per_chunk, self.model.dim)
        return state

    def step(self, audio: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """audio [B, S] -> frames [B, F, D] of the chunk `ahead` chunks ago, new state."""
        model, frames = self.model, self.model.frames_per_chunk
        window = torch.cat((state["audio"], audio), dim=1)
        front = {key.removeprefix("subsampling."): v for key, v in state.items() if "subsampling" in key}
        x, front = model.subsampling.step(model._mel(window), front)
        new = {"audio": window[:, audio.shape[1] :]}
        new |= {f"subsampling.{key}": value for key, value in front.items()}
        if self.ahead:
            x = torch.cat((state["pending"], x), dim=1)
            new["pending"] = x[:, frames:]
        for i, layer in enumerate(model.layers):
            x = self._block(layer, x, state, new, f"layer{i}.")
        return x[:, :frames], {name: new[name] for name in state}

    def _block(self, block: Block, x: Tensor, state: EncoderState, new: EncoderState, prefix: str) -> Tensor:
        """x [B, (1 + ahead) * F, D] -> the same shape; state moves on by the first chunk."""
        attention, convolution = block.attention, block.convolution
        frames, heads = attention.frames_per_chunk, (attention.heads, attention.head_dim)
        x = x + 0.5 * block.before(x)
        q, k, v = attention.qkv(block.norm(x)).chunk(3, dim=-1)
        k, v = torch.cat((state[prefix + "k"], k), 1), torch.cat((state[prefix + "v"], v), 1)
        past = state[prefix + "k"].shape[1]
        new[prefix + "k"], new[prefix + "v"] = k[:, frames : frames + past], v[:, frames : frames + past]
        cos, sin = rotary(torch.arange(past + x.shape[1]), attention.rotary_dims)
        q = rotate(q.unflatten(-1, heads), cos[past:], sin[past:])
        x = x + attention._attend(q, rotate(k.unflatten(-1, heads), cos, sin), v.unflatten(-1, heads), None)
        gated = torch.cat((state[prefix + "conv"], convolution._gated(x, None)), dim=1)
        new[prefix + "conv"] = gated[:, frames : frames + convolution.past]
        return block.finish(x + convolution._convolved(gated))


def build(preset: str, ahead: int) -> ConformerEncoder:
    """The preset's encoder, with look-ahead in its first `ahead` layers. Weights do not depend on `ahead`."""
    config = PRESETS[preset]
    torch.manual_seed(0)
    encoder = dataclasses.replace(config.encoder, lookahead=(1,) * ahead)
    return ConformerEncoder(encoder, config.chunk_ms).eval()


class Export(nn.Module):
    """step() with the state as a tuple."""

    def __init__(self, model: ConformerEncoder | Recomputing):
        super().__init__()
        self.model, self.names = model, list(model.init_state(1))

    def forward(self, audio: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        frames, new = self.model.step(audio, dict(zip(self.names, state, strict=True)))
        return frames, *(new[name] for name in self.names)


def runner(model: ConformerEncoder | Recomputing, streams: int, use_torch: bool) -> Callable[[Tensor], None]:
    """A function that takes one chunk of each stream, audio [streams, S], and keeps their state."""
    step = Export(model)
    audio, state = torch.zeros(streams, model.chunk_samples), tuple(model.init_state(streams).values())
    if use_torch:

        def run_torch(audio: Tensor) -> None:
            nonlocal state
            _, *state = step(audio, *state)

        return run_torch

    import onnxruntime

    names = ["audio", *(f"state.{name}" for name in step.names)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "step.onnx")
        torch.onnx.export(step, (audio, *state), path, input_names=names, dynamo=False, opset_version=17)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    arrays = [value.numpy() for value in state]

    def run_onnx(audio: Tensor) -> None:
        nonlocal arrays
        feed = dict(zip(names, [audio.numpy(), *arrays], strict=True))
        _, *arrays = session.run(None, feed)

    return run_onnx


def check() -> None:
    """Without look-ahead the two ways are the same computation, once the past is full."""
    model = build("debug", 0)
    other = Recomputing(model, 0)
    state, other_state = model.init_state(1), other.init_state(1)
    # what the first steps get wrong (keys of zeros) is gone when it has left the past of every layer in turn
    for _ in range((model.config.left_chunks or 0) * model.config.layers + model.config.layers + 1):
        audio = 0.1 * torch.randn(1, model.chunk_samples)
        ours, state = model.step(audio, state)
        theirs, other_state = other.step(audio, other_state)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def measure(preset: str, ahead: int, streams: int, chunks: int, use_torch: bool) -> list[float]:
    """Median milliseconds a chunk of one stream: per layer, recomputed. Other load hits both alike."""
    models = build(preset, ahead), Recomputing(build(preset, 0), ahead)
    runs = [runner(model, streams, use_torch) for model in models]
    times: list[list[float]] = [[], []]
    for _ in range(chunks):
        audio = 0.1 * torch.randn(streams, models[0].chunk_samples)
        for run, mine in zip(runs, times, strict=True):
            start = time.thread_time()
            run(audio)
            mine.append(1000 * (time.thread_time() - start))
    return [statistics.median(mine) / streams for mine in times]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="small", choices=sorted(PRESETS))
    parser.add_argument("--chunks", type=int, default=100, help="chunks to time (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=1, help="streams in a batch (default: %(default)s)")
    parser.add_argument("--torch", action="store_true", help="time torch instead of onnxruntime")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    check()
    chunk_ms = PRESETS[arguments.preset].chunk_ms
    runtime = "torch" if arguments.torch else "onnxruntime"
    print(
        f"{arguments.preset} in {runtime}, streams in a batch: {arguments.streams}; "
        f"ms of CPU for one {chunk_ms} ms chunk of one stream, one thread"
    )
    print("look-ahead   per layer   recomputed   recomputed / per layer")
    for ahead in (0, 1, 2, 4):
        if ahead <= PRESETS[arguments.preset].encoder.layers:
            ours, theirs = measure(
                arguments.preset, ahead, arguments.streams, arguments.chunks, arguments.torch
            )
            print(f"{ahead * chunk_ms:7} ms {ours:11.2f} {theirs:12.2f} {theirs / ours:12.2f}")


if __name__ == "__main__":
    main()
