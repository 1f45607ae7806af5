"""Changes to a graph by someone who knows TFLite's `schema.fbs`."""

from __future__ import annotations

import random
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hardening.mutants import Change, Files, flipped

GRAPH = "model.tflite"
INTEGERS = (-2, -1, 0, 1, 2, 3, 31, 255, 511, 65_536, 2**24, 2**30, 2**31 - 1, -(2**31))


def _parsed(files: Files) -> Any:
    return schema.ModelT.InitFromPackedBuf(files[GRAPH], 0)


def _bytes(model: Any) -> Files:
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return {GRAPH: bytes(builder.Output())}


def _replace(array: Any, chance: random.Random, choices: Any) -> Any:
    values = [] if array is None else [int(value) for value in array]
    kind = chance.randrange(4)
    if kind == 0 or not values:
        values.append(chance.choice(choices))
    elif kind == 1:
        values.pop(chance.randrange(len(values)))
    else:
        values[chance.randrange(len(values))] = chance.choice(choices)
    return np.array(values, np.int32)


def _tensor(files: Files, chance: random.Random) -> tuple[str, Files]:
    model = _parsed(files)
    tensor = chance.choice(model.subgraphs[0].tensors)
    kind = chance.choice(["shape", "type", "buffer", "variable", "signature", "scale", "external"])
    if kind == "shape":
        tensor.shape = _replace(tensor.shape, chance, INTEGERS)
    elif kind == "type":
        tensor.type = chance.randrange(20)
    elif kind == "buffer":
        tensor.buffer = chance.choice([0, 1, 2, len(model.buffers), 2**32 - 1])
    elif kind == "variable":
        tensor.isVariable = True
    elif kind == "signature":
        tensor.shapeSignature = _replace(tensor.shapeSignature, chance, INTEGERS)
    elif kind == "external":
        tensor.externalBuffer = chance.choice([1, 2, 2**32 - 1])
    else:
        quantisation = tensor.quantization or schema.QuantizationParametersT()
        scales = np.array([1.0] if quantisation.scale is None else quantisation.scale, np.float32)
        scales = scales if len(scales) else np.ones(1, np.float32)
        wrong = [0.0, -1.0, float("nan"), float("inf"), 1e-45]
        quantisation.scale = chance.choice([scales[:1], scales[: (len(scales) + 1) // 2], scales])
        quantisation.scale = np.array(quantisation.scale)
        quantisation.scale[chance.randrange(len(quantisation.scale))] = chance.choice(wrong)
        quantisation.zeroPoint = np.zeros(chance.choice([0, 1, len(scales)]), np.int64)
        quantisation.quantizedDimension = chance.choice(INTEGERS)
        tensor.quantization = quantisation
    return f"tensor {kind}", _bytes(model)


def _operator(files: Files, chance: random.Random) -> tuple[str, Files]:
    model = _parsed(files)
    graph = model.subgraphs[0]
    operator = chance.choice(graph.operators)
    indices = [*range(len(graph.tensors)), -1, -2, len(graph.tensors), 2**31 - 1]
    kind = chance.choice(
        ["inputs", "outputs", "opcode", "options", "no options", "custom", "order", "twice", "big"]
    )
    if kind == "inputs":
        operator.inputs = _replace(operator.inputs, chance, indices)
    elif kind == "outputs":
        operator.outputs = _replace(operator.outputs, chance, indices)
    elif kind == "opcode":
        operator.opcodeIndex = chance.choice([*range(len(model.operatorCodes) + 1), 2**32 - 1])
    elif kind == "options" and operator.builtinOptions is not None:
        _option(operator.builtinOptions, chance)
    elif kind == "no options":
        operator.builtinOptions, operator.builtinOptionsType = None, 0
    elif kind == "custom":
        operator.customOptions = list(chance.randbytes(9))
    elif kind == "order":
        chance.shuffle(graph.operators)
    elif kind == "twice":
        graph.operators.append(operator)
    else:
        operator.largeCustomOptionsOffset = chance.choice([1, 2**40])
        operator.largeCustomOptionsSize = chance.choice([1, 2**40])
    return f"operator {kind}", _bytes(model)


def _option(options: Any, chance: random.Random) -> None:
    names = sorted(vars(options))
    if not names:
        return
    name = chance.choice(names)
    value = getattr(options, name)
    if isinstance(value, bool):
        setattr(options, name, not value)
    elif isinstance(value, int):
        setattr(options, name, chance.choice([0, 1, 2, 3, 5, 17, 100, 127]))
    elif isinstance(value, float):
        setattr(options, name, chance.choice([0.0, float("nan"), float("inf"), -1e30]))
    else:
        setattr(options, name, _replace(value, chance, INTEGERS))


def _code(files: Files, chance: random.Random) -> tuple[str, Files]:
    model = _parsed(files)
    code = chance.choice(model.operatorCodes)
    kind = chance.choice(["builtin", "version", "custom"])
    if kind == "builtin":
        code.builtinCode = chance.randrange(210)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    elif kind == "version":
        code.version = chance.choice([0, 1, 2, 5, 12, 13, 99, -1, 2**31 - 1])
    else:
        code.customCode = chance.choice(["", "FlexAddV2", "x", "TFLite_Detection_PostProcess"])
        code.builtinCode = 32
        code.deprecatedBuiltinCode = 32
    return f"code {kind} {code.builtinCode}", _bytes(model)


def _graph(files: Files, chance: random.Random) -> tuple[str, Files]:
    model = _parsed(files)
    graph = model.subgraphs[0]
    kind = chance.choice(["inputs", "outputs", "more", "none", "signature", "version", "loop"])
    indices = [*range(len(graph.tensors)), -1, len(graph.tensors), 2**31 - 1]
    if kind == "inputs":
        graph.inputs = _replace(graph.inputs, chance, indices)
    elif kind == "outputs":
        graph.outputs = _replace(graph.outputs, chance, indices)
    elif kind == "more":
        model.subgraphs.append(graph)
    elif kind == "none":
        model.subgraphs = []
    elif kind == "signature":
        named = model.signatureDefs[0]
        chance.choice([*named.inputs, *named.outputs]).tensorIndex = chance.choice(
            [0, 1, 5, 2**31, 2**32 - 1]
        )
        named.subgraphIndex = chance.choice([0, 1, 2**32 - 1])
    elif kind == "version":
        model.version = chance.choice([0, 1, 2, 4, 2**32 - 1])
    else:
        _endless(model)
    return f"graph {kind}", _bytes(model)


def _endless(model: Any) -> None:
    """A WHILE whose condition and body are the graph that it is in."""
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = 119, 119, 1
    model.operatorCodes.append(code)
    options = schema.WhileOptionsT()
    options.condSubgraphIndex = options.bodySubgraphIndex = 0
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    graph = model.subgraphs[0]
    operator.inputs, operator.outputs = [graph.inputs[0]], [graph.outputs[0]]
    operator.builtinOptionsType = schema.BuiltinOptions.WhileOptions
    operator.builtinOptions = options
    graph.operators.append(operator)


def _buffers(files: Files, chance: random.Random) -> tuple[str, Files]:
    model = _parsed(files)
    full = [buffer for buffer in model.buffers if buffer.data is not None]
    one, other = chance.choice(full), chance.choice(full)
    kind = chance.choice(["swap", "same size", "cut", "none", "offset", "constant", "external"])
    if kind == "swap":
        one.data, other.data = other.data, one.data
    elif kind == "same size":
        other = chance.choice([buffer for buffer in full if len(buffer.data) == len(one.data)])
        one.data, other.data = other.data, one.data
    elif kind == "cut":
        one.data = one.data[: chance.randrange(len(one.data))]
    elif kind == "none":
        one.data = None
    elif kind == "offset":
        one.offset = chance.choice([2, 16, len(files[GRAPH]), 2**40, 2**64 - 1])
        one.size = chance.choice([1, len(one.data), 2**40, 2**64 - 1])
        one.data = chance.choice([one.data, None])
    elif kind == "constant":
        small = chance.choice([buffer for buffer in full if len(buffer.data) <= 16])
        small.data = np.array([chance.choice(INTEGERS)] * (len(small.data) // 4), "<i4").view("u1")
    else:
        _external(model, chance)
    return f"buffers {kind}", _bytes(model)


def _external(model: Any, chance: random.Random) -> None:
    """Have a tensor's data read from a file of another name."""
    group = schema.ExternalBufferGroupT()
    group.name = chance.choice(["../outside.bin", "/etc/passwd", "tokenizer.bin"])
    place = schema.ExternalBufferT()
    place.id, place.group, place.offset, place.length = 1, 0, 0, 1_024
    model.externalBufferGroups, model.externalBuffers = [group], [place]
    tensor = chance.choice([t for t in model.subgraphs[0].tensors if t.buffer])
    tensor.externalBuffer, tensor.buffer = 1, chance.choice([0, tensor.buffer])


def _metadata(files: Files, chance: random.Random) -> tuple[str, Files]:
    model = _parsed(files)
    note = schema.MetadataT()
    note.name = chance.choice(["min_runtime_version", "CONTROL_DEPENDENCIES", "reduced_precision"])
    note.name = chance.choice(
        [note.name, "model_control_dependencies", "reduced_precision_support"]
    )
    note.buffer = chance.choice([0, 1, 2, len(model.buffers), 2**32 - 1])
    model.metadata = [note]
    return f"metadata {note.name} {note.buffer}", _bytes(model)


def _flip_tables(files: Files, chance: random.Random) -> tuple[str, Files]:
    """Change bytes outside the weights, which is where the offsets are."""
    data = files[GRAPH]
    spans = _outside_buffers(data)
    start, end = chance.choices(spans, [b - a for a, b in spans])[0]
    return "flip tables", {GRAPH: flipped(data, chance, start, end)}


_spans: dict[int, list[tuple[int, int]]] = {}


def _outside_buffers(data: bytes) -> list[tuple[int, int]]:
    if id(data) not in _spans:
        model = schema.Model.GetRootAs(data, 0)
        taken = []
        for index in range(model.BuffersLength()):
            table = model.Buffers(index)._tab
            field = table.Offset(4)
            if field:
                start = table.Vector(field)
                taken.append((start, start + table.VectorLen(field)))
        spans, at = [], 0
        for start, end in sorted(taken):
            if start - at > 4:
                spans.append((at, start))
            at = end
        spans.append((at, len(data)))
        _spans[id(data)] = [(a, b) for a, b in spans if b > a]
    return _spans[id(data)]


CHANGES: tuple[Change, ...] = (
    *(_tensor, _tensor, _operator, _operator, _code, _graph, _buffers, _buffers, _metadata),
    *(_flip_tables, _flip_tables, _flip_tables),
)
