"""Reads weights and nodes out of an ONNX file with protobuf alone, which comes with ONNX Runtime.

The base install has no package ``onnx``. The few messages and fields that a decoder's graph needs
are declared here; names and numbers are those of onnx.proto, and what is not declared is skipped.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import BundleError, MissingExtraError
from edgecap.runtime.manifest import GraphSpec, TensorSpec

Array = npt.NDArray[Any]

# message -> field -> (number, type); a type in capitals is a message, "*" is repeated.
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "ModelProto": {"ir_version": (1, "int64"), "graph": (7, "GraphProto")},
    "GraphProto": {
        "node": (1, "*NodeProto"),
        "name": (2, "string"),
        "initializer": (5, "*TensorProto"),
        "input": (11, "*ValueInfoProto"),
        "output": (12, "*ValueInfoProto"),
    },
    "NodeProto": {
        "input": (1, "*string"),
        "output": (2, "*string"),
        "name": (3, "string"),
        "op_type": (4, "string"),
        "attribute": (5, "*AttributeProto"),
        "domain": (7, "string"),
    },
    "AttributeProto": {
        "name": (1, "string"),
        "f": (2, "float"),
        "i": (3, "int64"),
        "s": (4, "bytes"),
        "t": (5, "TensorProto"),
        "floats": (7, "*float"),
        "ints": (8, "*int64"),
        "strings": (9, "*bytes"),
        "type": (20, "int32"),
    },
    "TensorProto": {
        "dims": (1, "*int64"),
        "data_type": (2, "int32"),
        "float_data": (4, "*float"),
        "int32_data": (5, "*int32"),
        "int64_data": (7, "*int64"),
        "name": (8, "string"),
        "raw_data": (9, "bytes"),
        "data_location": (14, "int32"),
    },
    "ValueInfoProto": {"name": (1, "string"), "type": (2, "TypeProto")},
    "TypeProto": {"tensor_type": (1, "TensorTypeProto")},
    "TensorTypeProto": {"elem_type": (1, "int32"), "shape": (2, "TensorShapeProto")},
    "TensorShapeProto": {"dim": (1, "*DimensionProto")},
    "DimensionProto": {"dim_value": (1, "int64"), "dim_param": (2, "string")},
}
# TensorProto.DataType: the types that decoders' constants have
DTYPES: dict[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}
_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}


@functools.cache
def _model_class() -> Any:
    try:
        # By name: the package has no types for checkers.
        descriptor_pb2: Any = importlib.import_module("google.protobuf.descriptor_pb2")
        descriptor_pool: Any = importlib.import_module("google.protobuf.descriptor_pool")
        message_factory: Any = importlib.import_module("google.protobuf.message_factory")
    except ImportError:
        raise MissingExtraError(
            "reading a decoder's weights needs protobuf: pip install protobuf"
        ) from None
    package = "edgecap.onnx_weights"
    file = descriptor_pb2.FileDescriptorProto(
        name="edgecap/onnx_weights.proto", package=package, syntax="proto2"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = described.field.add(name=name, number=number)
            repeated, kind = kind.startswith("*"), kind.removeprefix("*")
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.ModelProto"))


def load_model(data: bytes, name: str) -> Any:
    """The file as a message with the fields of ``MESSAGES``. Raises ``BundleError``."""
    model = _model_class()()
    errors: Any = importlib.import_module("google.protobuf.message")
    try:
        model.ParseFromString(data)
    except errors.DecodeError:
        raise BundleError(f"{name} is no ONNX file") from None
    return model


def to_array(tensor: Any) -> Array:
    """A TensorProto's values, of the package ``onnx`` or of ``load_model``. Raises ``BundleError``
    for a type that is not in ``DTYPES`` or values that are not in the file."""
    name, shape = tensor.name or "a tensor", tuple(tensor.dims)
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None or tensor.data_location:
        raise BundleError(f"{name} has type {tensor.data_type} or lies in another file")
    if tensor.raw_data:
        values = np.frombuffer(tensor.raw_data, np.dtype(dtype).newbyteorder("<"))
    elif dtype == "float32":
        values = np.array(tensor.float_data, dtype)
    elif dtype == "int64":
        values = np.array(tensor.int64_data, dtype)
    elif dtype == "float16":
        values = np.array(tensor.int32_data, np.uint16).view(dtype)
    elif dtype == "float64":
        raise BundleError(f"{name} holds float64 values one by one")
    else:
        values = np.array(tensor.int32_data, np.int32).astype(dtype)
    if values.size != int(np.prod(shape)):
        raise BundleError(f"{name} has {values.size} values for the shape {list(shape)}")
    return values.astype(dtype, copy=False).reshape(shape)


def attributes(node: Any) -> dict[str, Any]:
    """Settings of a node by name: numbers, bytes, tensors, and lists of them."""
    found = {}
    for item in node.attribute:
        value = getattr(item, _FIELDS[item.type]) if item.type in _FIELDS else None
        found[item.name] = list(value) if item.type in (6, 7, 8) and value is not None else value
    return found


def fold(node: Any, values: Mapping[str, Array]) -> Array | None:
    """What a node makes of constant inputs; None for an operator that is not folded here.

    values : of the node's inputs that are given, by name
    """
    settings = attributes(node)
    given = [values.get(name) for name in node.input]
    if node.op_type == "Constant":
        return _constant(settings)
    first = given[0]
    if first is None:
        return None
    if node.op_type == "Identity":
        return first
    if node.op_type == "Cast":
        dtype = DTYPES.get(int(settings["to"]))
        return None if dtype is None else first.astype(dtype)
    if node.op_type == "Transpose":
        return np.transpose(first, settings.get("perm"))
    if node.op_type == "DequantizeLinear":
        return _dequantised(first, given[1:], settings)
    if len(given) != 2 or given[1] is None:
        return None
    second = given[1]
    if node.op_type == "Mul":
        product: Array = first * second
        return product
    if node.op_type == "Reshape":
        shape = [
            first.shape[at] if side == 0 and not settings.get("allowzero") else int(side)
            for at, side in enumerate(second)
        ]
        return first.reshape(shape)
    if node.op_type == "Unsqueeze":
        rank = first.ndim + second.size
        return np.expand_dims(first, tuple(int(axis) % rank for axis in second.reshape(-1)))
    return None


def _constant(settings: Mapping[str, Any]) -> Array | None:
    if "value" in settings:
        return to_array(settings["value"])
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        for key in (name, name + "s"):
            if key in settings:
                return np.asarray(settings[key], dtype)
    return None


def _dequantised(
    whole: Array, rest: list[Array | None], settings: Mapping[str, Any]
) -> Array | None:
    """What a DequantizeLinear gives; blocks are not folded."""
    scale = rest[0] if rest else None
    if scale is None or scale.ndim > 1 or settings.get("block_size", 0):
        return None
    return widen(whole, scale, rest[1] if len(rest) > 1 else None, int(settings.get("axis", 1)))


def widen(whole: Array, scale: Array, zero: Array | None, axis: int) -> Array:
    """(whole - zero) * scale in the scale's type. scale, zero : [] or, along ``axis``, [n]"""
    shape = [1] * whole.ndim
    if scale.ndim == 1:
        shape[axis] = scale.size
    shift = np.zeros_like(scale, np.int32) if zero is None else zero.astype(np.int32)
    if whole.itemsize == 1 and not shift.any():  # a large matrix: no other copy of it
        wide = whole.astype(scale.dtype)
        wide *= scale.reshape(shape)
        return wide
    centred = whole.astype(np.int32) - shift.reshape(shape)
    return np.asarray(centred.astype(scale.dtype) * scale.reshape(shape))


def stores_whole_numbers(model: Any) -> bool:
    """Whether a graph multiplies integers, or most of its weights are int8 or uint8; matrices
    alone are counted."""
    if any(node.op_type == "MatMulInteger" for node in model.graph.node):
        return True
    sizes = {True: 0, False: 0}
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            sizes[DTYPES.get(tensor.data_type) in ("int8", "uint8")] += math.prod(tensor.dims)
    return sizes[True] > sizes[False]


def describe_model(model: Any, file: str) -> GraphSpec:
    """The I/O table of a graph, as the manifest writes it."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}

    def table(values: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                value.name,
                DTYPES.get(value.type.tensor_type.elem_type, "unknown"),
                tuple(
                    int(side.dim_value) if side.HasField("dim_value") else side.dim_param or "?"
                    for side in value.type.tensor_type.shape.dim
                ),
            )
            for value in values
            if value.name not in stored
        )

    return GraphSpec(file, table(graph.input), table(graph.output))
