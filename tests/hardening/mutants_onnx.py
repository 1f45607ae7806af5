"""Changes to a graph by someone who knows `onnx.proto`."""

from __future__ import annotations

import random
from typing import Any

import onnx
from onnx import TensorProto, helper

from hardening.mutants import HUGE, Change, Files, flipped

GRAPH, WEIGHTS = "model.onnx", "weights.bin"
OPERATORS = (
    *("Loop", "If", "Scan", "Expand", "ConstantOfShape", "Range", "Tile", "Resize", "NonZero"),
    *("Gather", "MatMul", "Reshape", "Cast", "Split", "Transpose", "Pad", "Slice", "OneHot"),
    *("LSTM", "Conv", "MaxPool", "TopK", "Einsum", "ScatterND", "Compress", "Optional"),
)


def _parsed(files: Files) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(files[GRAPH])


def _bytes(model: onnx.ModelProto) -> Files:
    return {GRAPH: model.SerializeToString()}


def _number(chance: random.Random) -> int:
    return chance.choice([*(value for value in HUGE if value < 2**63), -1, -2, -(2**63)])


def _external(files: Files, chance: random.Random) -> tuple[str, Files]:
    model = _parsed(files)
    tensor = chance.choice([t for t in model.graph.initializer if t.external_data])
    entry = chance.choice(tensor.external_data)
    entry.value = chance.choice(
        [
            *(str(_number(chance)), str(_number(chance)), "-1", "1e9", "", " 4096", "0x10"),
            *("../weights.bin", "/etc/passwd", "tokenizer.bin", "weights.bin/..", "./weights.bin"),
            *("99999999999999999999999999", str(len(files[WEIGHTS])), str(chance.randrange(10**6))),
        ]
    )
    if chance.random() < 0.2:
        tensor.external_data.add(key=chance.choice(["offset", "checksum", "x"]), value="1")
    return f"external {entry.key} = {entry.value}", _bytes(model)


def _swap_tensors(files: Files, chance: random.Random) -> tuple[str, Files]:
    """Exchange the data of two tensors, of the same size where there are two."""
    model = _parsed(files)
    tensors = [t for t in model.graph.initializer if t.external_data]
    one = chance.choice(tensors)
    other = chance.choice([t for t in tensors if t.dims == one.dims] or tensors)
    for a, b in zip(one.external_data, other.external_data, strict=True):
        if a.key == "offset" or chance.random() < 0.1:
            a.value, b.value = b.value, a.value
    return f"swap {one.name} {other.name}", _bytes(model)


def _tensor(files: Files, chance: random.Random) -> tuple[str, Files]:
    model = _parsed(files)
    tensor = chance.choice(model.graph.initializer)
    kind = chance.choice(["dims", "rank", "type", "raw", "place", "name"])
    if kind == "dims" and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = _number(chance)
    elif kind == "rank":
        tensor.dims.append(_number(chance)) if chance.random() < 0.5 else tensor.ClearField("dims")
    elif kind == "type":
        tensor.data_type = chance.choice([*range(26), 99, -1, 2**31 - 1])
    elif kind == "raw":
        raw = tensor.raw_data
        tensor.raw_data = flipped(raw, chance, 0, len(raw)) if raw else chance.randbytes(8)
    elif kind == "place":
        tensor.data_location = 1 - tensor.data_location
    else:
        tensor.name = chance.choice(["", "input_ids", "sentence_embedding", "\x00", "tensor_1"])
    return f"tensor {kind}", _bytes(model)


def _node(files: Files, chance: random.Random) -> tuple[str, Files]:
    model = _parsed(files)
    nodes = model.graph.node
    node = chance.choice(nodes)
    kind = chance.choice(["input", "output", "operator", "attribute", "domain", "copy", "drop"])
    names = [n for other in nodes for n in other.output] + ["", "input_ids", "nowhere"]
    names += [tensor.name for tensor in model.graph.initializer]
    if kind == "input":
        node.input[chance.randrange(len(node.input))] = chance.choice(names)
    elif kind == "output":
        node.output[chance.randrange(len(node.output))] = chance.choice(names)
    elif kind == "operator":
        node.op_type = chance.choice(OPERATORS)
    elif kind == "attribute":
        _attribute(chance.choice(nodes), chance)
    elif kind == "domain":
        node.domain = chance.choice(["com.microsoft", "ai.onnx.ml", "x", "ai.onnx.training"])
    elif kind == "copy":
        nodes.append(node)
    else:
        nodes.remove(node)
    return f"node {kind} {node.op_type}", _bytes(model)


def _attribute(node: Any, chance: random.Random) -> None:
    if not node.attribute or chance.random() < 0.2:
        key = chance.choice(["axis", "to", "perm", "allowzero", "num_outputs", "body", "epsilon"])
        node.attribute.append(helper.make_attribute(key, chance.choice([_number(chance), 1.5])))
    attribute = chance.choice(node.attribute)
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = _number(chance)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = chance.choice([0.0, -1.0, float("nan"), float("inf"), 1e30])
    elif attribute.ints:
        attribute.ints[chance.randrange(len(attribute.ints))] = _number(chance)


def _loop(files: Files, chance: random.Random) -> tuple[str, Files]:
    """Put in a loop that never ends, or a constant that no memory holds."""
    model = _parsed(files)
    graph = model.graph
    last = next(node for node in graph.node if "sentence_embedding" in node.output)
    last.output[0] = "inner"
    if chance.random() < 0.5:
        one = helper.make_tensor_value_info
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go_on"], ["still"]),
                helper.make_node("Identity", ["x"], ["y"]),
            ],
            "body",
            [one("i", 7, []), one("go_on", 9, []), one("x", 1, None)],
            [one("still", 9, []), one("y", 1, None)],
        )
        graph.initializer.append(helper.make_tensor("times", TensorProto.INT64, [], [2**62]))
        graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
        graph.node.append(
            helper.make_node("Loop", ["times", "yes", "inner"], ["sentence_embedding"], body=body)
        )
        return "endless loop", _bytes(model)
    graph.initializer.append(helper.make_tensor("much", TensorProto.INT64, [2], [2**20, 2**14]))
    graph.node.append(helper.make_node("ConstantOfShape", ["much"], ["ocean"]))
    graph.node.append(helper.make_node("ReduceMax", ["ocean"], ["drop"], keepdims=1))
    graph.node.append(helper.make_node("Add", ["inner", "drop"], ["sentence_embedding"]))
    return "huge constant", _bytes(model)


def _elsewhere(files: Files, chance: random.Random) -> tuple[str, Files]:
    """Hide external data where a graph may also hold tensors."""
    model = _parsed(files)
    hidden = TensorProto(name="x", dims=[4], data_type=1, data_location=1)
    hidden.external_data.add(key="location", value=chance.choice(["../x", "weights.bin"]))
    kind = chance.choice(["attribute", "subgraph", "sparse", "function", "training"])
    if kind == "attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["e"], value=hidden))
    elif kind == "subgraph":
        inner = helper.make_graph([], "g", [], [], initializer=[hidden])
        model.graph.node.append(
            helper.make_node("If", ["input_ids"], ["e"], then_branch=inner, else_branch=inner)
        )
    elif kind == "sparse":
        model.graph.sparse_initializer.add(values=hidden, indices=hidden, dims=[4])
    elif kind == "function":
        node = helper.make_node("Constant", [], ["e"], value=hidden)
        model.functions.append(
            helper.make_function("f", "F", [], ["e"], [node], [helper.make_opsetid("", 20)])
        )
    else:
        model.training_info.add().algorithm.initializer.append(hidden)
    return f"hidden in {kind}", _bytes(model)


def _interface(files: Files, chance: random.Random) -> tuple[str, Files]:
    model = _parsed(files)
    side = chance.choice([model.graph.input, model.graph.output])
    kind = chance.choice(["shape", "type", "name", "more", "opset", "ir", "info"])
    if kind == "shape":
        side[0].type.tensor_type.shape.dim[chance.randrange(2)].dim_value = _number(chance)
    elif kind == "type":
        side[0].type.tensor_type.elem_type = chance.choice([0, 1, 6, 7, 8, 10, 16, 99])
    elif kind == "name":
        side[0].name = chance.choice(["", "x", "input_ids"])
    elif kind == "more":
        side.append(side[0])
    elif kind == "opset":
        model.opset_import[0].version = _number(chance)
    elif kind == "ir":
        model.ir_version = _number(chance)
    else:
        name = chance.choice([name for node in model.graph.node for name in node.output])
        shape = [_number(chance), _number(chance)]
        model.graph.value_info.append(
            helper.make_tensor_value_info(name, chance.choice([1, 3, 7]), shape)
        )
    return f"interface {kind}", _bytes(model)


def _flip_graph(files: Files, chance: random.Random) -> tuple[str, Files]:
    data = files[GRAPH]
    return "flip graph", {GRAPH: flipped(data, chance, 0, len(data))}


CHANGES: tuple[Change, ...] = (
    *(_external, _swap_tensors, _tensor, _tensor, _node, _node, _node, _loop),
    *(_elsewhere, _interface, _flip_graph, _flip_graph),
)
