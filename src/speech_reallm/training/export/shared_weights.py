"""ONNX graphs whose weights lie in model.safetensors: a model folder holds every weight once.

Matrix products become MatMulNBits on the packed bytes themselves (model/packing.py): 8-bit weights, inputs quantised
row by row as they come, so that, unlike with dynamic quantisation, no stream's result depends on its neighbours in a
batch. Other packed weights (convolutions, embeddings) are unpacked when the graph is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ..model.packing import BLOCK, SCALE, SHAPE, unpack

_TYPES = {"U8": TensorProto.UINT8, "F32": TensorProto.FLOAT}
_CONTRIB = "com.microsoft"


class SharedWeights:
    """The tensors of a safetensors file, for graphs to refer to."""

    def __init__(self, path: Path, packed: dict[str, Tensor]):
        """path: the file, which lies in the folder of the graphs. packed: what it holds."""
        self.path = path
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            self.index = json.loads(file.read(size))
        self.begin = 8 + size
        self.shapes = {k[: -len(SHAPE)]: v.tolist() for k, v in packed.items() if k.endswith(SHAPE)}
        full = unpack(
            {k: v for k, v in packed.items() if k.removesuffix(SCALE).removesuffix(SHAPE) in self.shapes}
        )
        # the exporter renames weights and turns matrices: they are known by what they hold
        self.names: dict[tuple[tuple[int, ...], int], tuple[str, bool]] = {}
        for name, value in full.items():
            array = value.numpy()
            self.names[_key(array)] = (name, False)
            if array.ndim == 2:
                self.names.setdefault(_key(array.T), (name, True))

    def find(self, array: np.ndarray) -> tuple[str, bool] | None:
        """The packed weight with these values, and whether they are its transpose."""
        return self.names.get(_key(array))

    def tensor(self, name: str) -> TensorProto:
        """A tensor of the file as an initializer that refers to it."""
        entry = self.index[name]
        low, high = entry["data_offsets"]
        tensor = TensorProto(name=name, data_type=_TYPES[entry["dtype"]], dims=entry["shape"])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", self.path.name),
            ("offset", self.begin + low),
            ("length", high - low),
        ):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def _key(array: np.ndarray) -> tuple[tuple[int, ...], int]:
    return array.shape, hash(np.ascontiguousarray(array, np.float32).tobytes())


def share(source: Path, target: Path, weights: SharedWeights) -> None:
    """Rewrite the float graph `source` as `target`, its weights replaced by those of the file beside it."""
    model = onnx.load(str(source))
    graph = model.graph
    found = {}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2:
            match = weights.find(numpy_helper.to_array(tensor))
            if match is not None:
                found[tensor.name] = match
    used: set[str] = set()
    nodes, unpacked = [], {}
    for node in graph.node:
        if node.op_type == "MatMul" and found.get(node.input[1], ("", False))[1]:
            name = found[node.input[1]][0]
            rows, columns = weights.shapes[name]
            node = helper.make_node(
                "MatMulNBits", [node.input[0], name, name + SCALE], list(node.output), node.name, domain=_CONTRIB,
                K=columns, N=rows, bits=8, block_size=BLOCK, accuracy_level=4,
            )  # fmt: skip
            used |= {name, name + SCALE}
        elif node.op_type == "Gather" and found.get(node.input[0], ("", True))[1] is False:
            # a row of a table is unpacked when it is asked for, so that no float copy of the table is held
            name = found[node.input[0]][0]
            nodes += _row(name, weights.shapes[name], node.input[1], node.output[0])
            used |= {name, name + SCALE}
            continue
        else:
            for i, given in enumerate(node.input):
                if given in found:
                    node.input[i] = unpacked[given] = f"{given}.unpacked"
        nodes.append(node)
    first = []
    for given, made in unpacked.items():
        name, turned = found[given]
        used |= {name, name + SCALE}
        first += _unpacking(name, weights.shapes[name], turned, made)
    graph.ClearField("node")
    graph.node.extend(first + nodes)
    kept = [t for t in graph.initializer if t.name not in found]
    graph.ClearField("initializer")
    graph.initializer.extend(kept + [weights.tensor(name) for name in sorted(used)])
    model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    target.write_bytes(model.SerializeToString())


def _row(name: str, shape: list[int], index: str, made: str) -> list[onnx.NodeProto]:
    """Nodes from the packed bytes of a table and an index [B] to its rows [B, K]."""
    rows = [helper.make_node("Gather", [name + part, index], [f"{made}.rows{part}"]) for part in ("", SCALE)]
    return rows + _floats(f"{made}.rows", f"{made}.rows{SCALE}", [-1, *shape[1:]], False, made)


def _unpacking(name: str, shape: list[int], turned: bool, made: str) -> list[onnx.NodeProto]:
    """Nodes from packed bytes to the weight; all constant, so that they are computed once, at loading."""
    return _floats(name, name + SCALE, shape, turned, made)


def _floats(packed: str, scale: str, shape: list[int], turned: bool, made: str) -> list[onnx.NodeProto]:
    """Nodes from packed bytes [N, blocks, 64] and scales [N, blocks] to floats of this shape, N first; N may be -1."""
    count = int(np.prod(shape[1:]))
    steps: list[tuple[str, list, dict]] = [
        ("Cast", [], {"to": TensorProto.FLOAT}),
        ("Sub", [np.float32(128)], {}),
        ("Mul", ["scale"], {}),
        ("Reshape", [np.array([shape[0], -(-count // BLOCK) * BLOCK])], {}),
        ("Slice", [np.array([0]), np.array([count]), np.array([1])], {}),
        ("Reshape", [np.array(shape)], {}),
    ]
    if turned:
        steps.append(("Transpose", [], {"perm": [1, 0]}))
    nodes = [
        helper.make_node("Constant", [], [f"{made}.axis"], value=numpy_helper.from_array(np.array([2]))),
        helper.make_node("Unsqueeze", [scale, f"{made}.axis"], [f"{made}.scale"]),
    ]
    value = packed
    for number, (kind, arguments, attributes) in enumerate(steps):
        inputs = [value]
        for i, argument in enumerate(arguments):
            inputs.append(f"{made}.scale" if isinstance(argument, str) else f"{made}.{number}.{i}")
            if not isinstance(argument, str):
                constant = numpy_helper.from_array(np.asarray(argument))
                nodes.append(helper.make_node("Constant", [], [inputs[-1]], value=constant))
        value = made if number == len(steps) - 1 else f"{made}.{number}"
        nodes.append(helper.make_node(kind, inputs, [value], **attributes))
    return nodes
