"""ONNX graphs whose weights lie in model.safetensors: a model folder holds every weight once.

Matrix products become DynamicQuantizeMatMul on the packed bytes themselves (model/packing.py): weights are signed and
inputs unsigned bytes, the sums whole numbers that are exact on every processor. The scale of an input is taken over a
whole call, so a call is for one stream alone: what others say must not change its digits. Convolutions are products of
windows, each brought to one level first. Other packed weights (of the first convolution, of embeddings) are unpacked
when the graph is loaded, a table's rows when they are asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from ..model.packing import SCALE, SHAPE, unpack

_TYPES = {"I8": TensorProto.INT8, "F32": TensorProto.FLOAT}
_CONTRIB = "com.microsoft"


class Stored(NamedTuple):
    """A packed weight as a matrix [N, K]. by_tap: of a convolution [N, C, T], K counting taps first, then channels."""

    name: str
    by_tap: bool


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
        # the exporter renames weights, turns and joins matrices: they are known by what they hold
        self.whole: dict[tuple[tuple[int, ...], bytes], tuple[Stored, bool]] = {}
        self.by_first_row: dict[bytes, list[tuple[Stored, np.ndarray]]] = {}
        for name, value in full.items():
            array = value.numpy()
            self.whole[_key(array)] = (Stored(name, False), False)
            matrices = [(Stored(name, False), array.reshape(len(array), -1))]
            if array.ndim == 3:
                matrices.append((Stored(name, True), array.transpose(0, 2, 1).reshape(len(array), -1)))
            for stored, matrix in matrices:
                self.whole.setdefault(_key(matrix.T), (stored, True))
                self.by_first_row.setdefault(matrix[0].tobytes(), []).append((stored, matrix))

    def find(self, array: np.ndarray) -> tuple[Stored, bool] | None:
        """The packed weight with these values, and whether they are its transpose."""
        return self.whole.get(_key(array))

    def find_rows(self, matrix: np.ndarray) -> list[Stored] | None:
        """The packed weights that, one below another, make up the matrix [N, K]; None if it is not made of such."""
        parts: list[Stored] = []
        at = 0
        while at < len(matrix):
            for stored, rows in self.by_first_row.get(matrix[at].tobytes(), ()):
                if np.array_equal(matrix[at : at + len(rows)], rows):
                    parts.append(stored)
                    at += len(rows)
                    break
            else:
                return None
        return parts

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


def _key(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return array.shape, np.ascontiguousarray(array, np.float32).tobytes()


class _Rewriter:
    """Collects the nodes of the new graph."""

    def __init__(self, graph: onnx.GraphProto, weights: SharedWeights):
        self.graph, self.weights = graph, weights
        self.floats = {
            t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == TensorProto.FLOAT
        }
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].t.data_type == TensorProto.FLOAT:
                self.floats[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        # what is computed once, at loading, stands first
        self.constant: list[NodeProto] = []
        self.nodes: list[NodeProto] = []
        self.stored: set[str] = set()
        self.made: set[str] = set()
        self.added: list[TensorProto] = []

    def op(
        self, kind: str, inputs: list[str], output: str, constant: bool = True, domain: str = "", **attributes
    ) -> str:
        node = helper.make_node(kind, inputs, [output], output, domain=domain, **attributes)
        (self.constant if constant else self.nodes).append(node)
        return output

    def value(self, array: np.ndarray, name: str) -> str:
        if name not in self.made:
            self.made.add(name)
            self.added.append(numpy_helper.from_array(array, name))
        return name

    def whole(self, array: list[int], name: str) -> str:
        return self.value(np.array(array, np.int64), name)

    def use(self, name: str) -> tuple[str, str]:
        """Bytes [N, K] and scales [N] of a packed weight."""
        self.stored |= {name, name + SCALE}
        return name, name + SCALE

    def product(
        self, x: str, parts: list[Stored], factors: str | None, bias: str | None, output: str
    ) -> None:
        """x [..., K] times the transpose of the weights, one below another, times `factors` [N], plus the bias."""
        made = "+".join(part.name for part in parts)
        columns, scale = f"{made}.columns", f"{made}.scales"
        if made not in self.made:
            self.made.add(made)
            rows, scales = [], []
            for part in parts:
                packed, scaled = self.use(part.name)
                rows.append(self.by_tap(part.name, packed) if part.by_tap else packed)
                scales.append(scaled)
            self.op("Concat", scales, scale, axis=0)
            self.op("Concat", rows, f"{made}.rows", axis=0)
            self.op("Transpose", [f"{made}.rows"], columns, perm=[1, 0])
        if factors:
            scale = self.op("Mul", [scale, factors], f"{output}.scales")
        if any(part.by_tap for part in parts):
            self.product_of_levelled_rows(x, columns, scale, bias, output)
            return
        inputs = [x, columns, scale, *(("", bias) if bias else ())]
        self.op("DynamicQuantizeMatMul", inputs, output, False, _CONTRIB)

    def by_tap(self, name: str, packed: str) -> str:
        """The bytes of a convolution [N, C * T] as [N, T * C]."""
        shape = self.weights.shapes[name]
        packed = self.op("Reshape", [packed, self.whole(shape, f"{name}.shape")], f"{name}.3d")
        packed = self.op("Transpose", [packed], f"{name}.turned", perm=[0, 2, 1])
        return self.op("Reshape", [packed, self.whole([shape[0], -1], f"{name}.2d")], f"{name}.by_tap")

    def product_of_levelled_rows(
        self, x: str, columns: str, scale: str, bias: str | None, output: str
    ) -> None:
        """The same where each row of x is brought to one level first, and its sums back to its own.

        The frames of a chunk differ in level by far more than what comes out of a normalisation, and share a scale.
        """
        axis = self.whole([-1], "last")
        size = self.op("Abs", [x], f"{output}.size", False)
        level = self.op("ReduceMax", [size, axis], f"{output}.largest", False)
        least = self.value(np.array(1e-12, np.float32), "least")
        level = self.op("Max", [level, least], f"{output}.level", False)
        x = self.op("Div", [x, level], f"{output}.levelled", False)
        made = self.op("DynamicQuantizeMatMul", [x, columns, scale], f"{output}.sums", False, _CONTRIB)
        product = f"{output}.product" if bias else output
        self.op("Mul", [made, level], product, False)
        if bias:
            self.op("Add", [product, bias], output, False)

    def rows(self, name: str, index: str, output: str) -> None:
        """The rows `index` [B] of a table, as floats [B, K]."""
        packed, scale = self.use(name)
        at = f"{output}.of"
        packed = self.op("Gather", [packed, index], f"{at}.bytes", False)
        scale = self.op("Gather", [scale, index], f"{at}.scale", False)
        self.floats_of(packed, scale, [-1, *self.weights.shapes[name][1:]], False, output, False)

    def unpacked(self, stored: Stored, turned: bool, output: str) -> None:
        if output in self.made:
            return
        self.made.add(output)
        packed, scale = self.use(stored.name)
        shape = self.weights.shapes[stored.name]
        if not stored.by_tap:
            self.floats_of(packed, scale, shape, turned, output, True)
            return
        self.floats_of(packed, scale, shape, False, f"{output}.3d", True)
        self.op("Transpose", [f"{output}.3d"], f"{output}.turned", perm=[2, 1, 0])
        self.op("Reshape", [f"{output}.turned", self.whole([-1, shape[0]], f"{output}.2d")], output)

    def floats_of(
        self, packed: str, scale: str, shape: list[int], turned: bool, output: str, constant: bool
    ) -> None:
        """Packed bytes [N, K] and scales [N] to floats of this shape; turned: as a matrix [K, N]."""
        last = self.whole([-1], "last")
        steps: list[tuple[str, list[str], dict[str, Any]]] = [
            ("Cast", [], {"to": TensorProto.FLOAT}),
            ("Mul", [self.op("Unsqueeze", [scale, last], f"{output}.scale", constant)], {}),
        ]
        if turned:
            steps.append(("Transpose", [], {"perm": [1, 0]}))
        elif len(shape) > 2:
            steps.append(("Reshape", [self.whole(shape, f"{output}.shape")], {}))
        for number, (kind, inputs, attributes) in enumerate(steps):
            made = output if number == len(steps) - 1 else f"{output}.{number}"
            packed = self.op(kind, [packed, *inputs], made, constant, **attributes)


def share(source: Path, target: Path, weights: SharedWeights) -> None:
    """Rewrite the float graph `source` as `target`, its weights replaced by those of the file beside it."""
    model = onnx.load(str(source))
    graph = model.graph
    new = _Rewriter(graph, weights)
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    merged: set[str] = set()

    def merge(last: NodeProto, kind: str, columns: int) -> tuple[str | None, NodeProto]:
        """The constant [N] of a node of this kind that alone uses the output of `last`, and that node."""
        (user, *others) = users.get(last.output[0], [None])
        if user is None or user.op_type != kind or others:
            return None, last
        (other,) = (i for i in user.input if i != last.output[0])
        if new.floats.get(other, np.zeros(0)).shape != (columns,):
            return None, last
        merged.add(user.output[0])
        return other, user

    for node in graph.node:
        if node.output[0] in merged:
            continue
        if (parts := _product(node, new)) is not None:
            columns = new.floats[node.input[1]].shape[1]
            factors, last = merge(node, "Mul", columns)
            bias, last = merge(last, "Add", columns)
            new.product(node.input[0], parts, factors, bias, last.output[0])
            continue
        for i, name in enumerate(node.input):
            match = (
                weights.find(new.floats[name]) if name in new.floats and new.floats[name].ndim > 1 else None
            )
            if match is None:
                continue
            if node.op_type == "Gather" and i == 0 and not match[1]:
                new.rows(match[0].name, node.input[1], node.output[0])
                break
            node.input[i] = f"{name}.unpacked"
            new.unpacked(*match, node.input[i])
        else:
            new.nodes.append(node)
    graph.ClearField("node")
    graph.node.extend(new.constant + new.nodes)
    used = {name for node in graph.node for name in node.input}
    # a packed weight may have the name that the exporter gave its floats
    kept = [t for t in graph.initializer if t.name in used - new.stored] + new.added
    graph.ClearField("initializer")
    graph.initializer.extend(kept + [weights.tensor(name) for name in sorted(new.stored)])
    if not any(opset.domain == _CONTRIB for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    target.write_bytes(model.SerializeToString())


def _product(node: NodeProto, new: _Rewriter) -> list[Stored] | None:
    """The packed weights that a node multiplies with; None if it is no such product."""
    if node.op_type != "MatMul" or node.input[0] in new.floats:
        return None
    matrix = new.floats.get(node.input[1])
    if matrix is None or matrix.ndim != 2:
        return None
    parts = new.weights.find_rows(np.ascontiguousarray(matrix.T))
    # the first convolution is small, and its input, audio, the least fit for eight bits
    if parts and any(new.weights.shapes[p.name][1] == 1 for p in parts):
        return None
    return parts
