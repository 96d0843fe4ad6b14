"""Signatures of the ONNX graphs, and checks that a graph is what `config.json` says."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..onnx_session import OnnxSession

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}

# shape without the batch dimension, and type, of each input or output
Signature = dict[str, tuple[tuple[Any, ...], Any]]


def signature(session: OnnxSession, path: Path, free: Collection[str] = ()) -> tuple[Signature, Signature]:
    """Names, shapes without the batch dimension, and types of a graph's inputs and outputs.

    Outputs keep None for a dimension that the graph does not fix, and so do the inputs in `free`; others must fix all
    but the first. Raises UserError naming the graph `path` for one that breaks the contract of docs/model-folder.md.
    """
    both = []
    for nodes, is_input in ((session.get_inputs(), True), (session.get_outputs(), False)):
        found: Signature = {}
        for node in nodes:
            shape = tuple(d if isinstance(d, int) else None for d in node.shape[1:])
            if node.type not in _DTYPES:
                raise UserError(f"{path}: {node.name} has the type {node.type}; export the model again")
            fixed = is_input and node.name not in free
            if not node.shape or (fixed and any(d is None or d < 0 for d in shape)):
                raise UserError(f"{path}: {node.name} has no fixed shape, {node.shape}; export it again")
            if isinstance(node.shape[0], int) and node.shape[0] != 1:
                raise UserError(f"{path}: {node.name} is not for one stream, {node.shape}; export it again")
            found[node.name] = (shape, _DTYPES[node.type])
        both.append(found)
    return both[0], both[1]


def expect(
    found: Signature, name: str, shape: tuple[int | None, ...], dtype: Any, path: Path
) -> tuple[Any, ...]:
    """The shape of `name`, which must agree with `shape` where that is not None (nor the graph's own).

    Raises UserError naming the graph `path` where it does not.
    """
    if name not in found:
        raise UserError(f"{path} has no {name}; export the model again")
    own, kind = found[name]
    agree = len(own) == len(shape) and all(
        a is None or b is None or a == b for a, b in zip(own, shape, strict=True)
    )
    if kind is not dtype or not agree:
        raise UserError(
            f"{path}: {name} is {np.dtype(kind).name} {list(own)} where config.json asks for "
            f"{np.dtype(dtype).name} {['any' if d is None else d for d in shape]}; export the model again"
        )
    return own


class Ring(NamedTuple):
    """How an output of a graph goes into a state that is never copied, but written one slot at a time.

    axis: of the state, in which a slot has `size` places, `slots` of them; None where the output replaces all of it.
    squeezed: the output lacks that axis.
    """

    axis: int | None
    size: int
    slots: int
    squeezed: bool = False

    def write(self, state: np.ndarray, new: np.ndarray, slot: int) -> None:
        """Both with their batch dimension of 1; `state` is changed in place."""
        if self.axis is None:
            state[...] = new
            return
        first = slot * self.size
        place = (slice(None),) * self.axis + (slice(first, first + self.size),)
        state[place] = np.expand_dims(new, self.axis) if self.squeezed else new


def ring(inputs: Signature, name: str, outputs: Signature, new: str, path: Path) -> Ring:
    """How the output `new` goes into the input `name`: their shapes differ in one dimension at most, that of the slots.

    Raises UserError naming `path`, the graph with the output, where they do not fit.
    """
    shape, dtype = inputs[name]
    found = outputs.get(new, (shape, dtype))[0]
    axes = [i for i, (a, b) in enumerate(zip(shape, found, strict=False)) if b is not None and a != b]
    axis = axes[0] if axes else None
    expect(outputs, new, tuple(None if i == axis else d for i, d in enumerate(shape)), dtype, path)
    if axis is None:
        return Ring(None, 0, 1)
    size = found[axis]
    if not size or shape[axis] % size:
        raise UserError(
            f"{path}: {new} is {list(found)}, of which {name} {list(shape)} is no multiple; export it again"
        )
    return Ring(axis + 1, size, shape[axis] // size)


def check_encoder(
    inputs: Signature, outputs: Signature, chunk_samples: int, path: Path
) -> tuple[Signature, dict[str, Ring]]:
    """What of a stream an encoder keeps from one call to the next: its `state.*` and `ring.*` inputs, and the rings.

    Raises UserError.
    """
    expect(inputs, "audio", (chunk_samples,), np.float32, path)
    expect(inputs, "delay", (), np.int64, path)
    expect(outputs, "embedding", (None,), np.float32, path)
    states = {n: spec for n, spec in inputs.items() if n not in ("audio", "delay")}
    rings = {}
    for name, (shape, dtype) in states.items():
        if name.startswith("ring."):
            rings[name] = ring(inputs, name, outputs, f"new_{name}", path)
        elif name.startswith("state."):
            expect(outputs, f"new_{name}", shape, dtype, path)
        else:
            raise UserError(f"{path}: unexpected input {name}; export the model again")
    return states, rings


def state_bytes(*kept: Signature) -> int:
    """Bytes of one stream's state."""
    total = 0
    for part in kept:
        for shape, dtype in part.values():
            size = np.dtype(dtype).itemsize
            for dimension in shape:
                size *= dimension
            total += size
    return total


def zeros(kept: Signature) -> dict[str, np.ndarray]:
    """The state of one stream at its start: a batch of one."""
    return {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in kept.items()}
