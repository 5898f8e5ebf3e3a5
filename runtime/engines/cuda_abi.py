"""decoder_api.h in ctypes, and a program's arrays as the library reads them: rows of weights padded
to 128 bytes, in float32, float16, or int8 with a scale a row."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.engines.cuda_program import (
    WORDS,
    Additive,
    Attention,
    Operation,
    Product,
    Program,
)
from edgecap.runtime.errors import EngineError

VERSION = 2
ROW_BYTES = 128
PRECISIONS = {"fp32": (0, np.float32), "fp16": (1, np.float16), "int8": (2, np.int8)}
KINDS = {Product: 0, Attention: 1, Additive: 2}
PARTS = {"words": 0, "buffer": 1, "parent": 2, "state": 3}
TARGETS = {"buffer": 0, "qkv": 1, "lstm": 2, "gru": 3, "logits": 4}
ACTIVATIONS = {"": 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "tanh": 4}
LAYOUTS = {"same": 0, "keys": 1, "rows": 2, "first": 3}
NO_RESIDUAL, RESIDUAL_WORDS = -1, -2

_I, _F, _P = ctypes.c_int32, ctypes.c_float, ctypes.c_void_p


class SegmentStruct(ctypes.Structure):
    _fields_ = (("kind", _I), ("index", _I), ("width", _I))


class OperationStruct(ctypes.Structure):
    _fields_ = (
        ("kind", _I),
        ("segments", _I),
        ("segment", SegmentStruct * 3),
        *((name, _I) for name in ("outputs", "activation", "residual", "keep", "keep_normed")),
        *((name, _I) for name in ("to", "out", "state", "cache")),
        ("eps", _F),
        *((name, _P) for name in ("weight", "scale", "bias", "gamma", "beta")),
        *((name, _I) for name in ("query", "heads", "keys", "values")),
        ("product_scale", _F),
        ("score", _P),
    )


class MemoryStruct(ctypes.Structure):
    _fields_ = tuple((name, _I) for name in ("layout", "heads", "places", "depth"))


class SpecStruct(ctypes.Structure):
    _fields_ = (
        *((name, _I) for name in ("abi", "precision", "vocab", "word_width", "positions")),
        *((name, _I) for name in ("places", "place_offset")),
        *((name, _P) for name in ("words", "word_scale", "place_table")),
        *((name, _I) for name in ("buffers", "states", "caches", "memories", "operations")),
        *((name, _P) for name in ("buffer_width", "state_width", "cache_width")),
        ("memory", ctypes.POINTER(MemoryStruct)),
        ("operation", ctypes.POINTER(OperationStruct)),
    )


class SearchStruct(ctypes.Structure):
    _fields_ = (
        *((name, _I) for name in ("batch", "beams", "max_new_tokens", "min_new_tokens")),
        *((name, _I) for name in ("no_repeat_ngram_size", "early_stopping", "bos", "eos", "pad")),
        ("repetition_penalty", _F),
        ("length_penalty", ctypes.c_double),
        ("suppressed", _I),
        ("suppress_tokens", _P),
        ("stopped", _I),
    )


_INTS, _FLOATS = ctypes.POINTER(_I), ctypes.POINTER(_F)
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "edgecap_decoder_create": (
        ctypes.POINTER(SpecStruct),
        ctypes.POINTER(_P),
        ctypes.c_char_p,
        ctypes.c_size_t,
    ),
    "edgecap_decoder_decode": (_P, ctypes.POINTER(SearchStruct), _P, _P, _P, _P),
    "edgecap_decoder_stop": (_P,),
    "edgecap_decoder_results": (_P, _P, _P, _P, _P, _P, _P),
    "edgecap_decoder_describe": (_P, _P, _P, _P, _P),
    "edgecap_decoder_message": (_P,),
    "edgecap_decoder_destroy": (_P,),
}


class Packed:
    """A program as the library's description; keeps the arrays that it points to."""

    def __init__(self, program: Program, positions: int, precision: str) -> None:
        if precision not in PRECISIONS:
            raise EngineError(f"precision is {precision!r}; give one of {', '.join(PRECISIONS)}")
        self._code, self._dtype = PRECISIONS[precision]
        self._held: list[Any] = []
        # By the float array's id: a head that is the words' own matrix is packed and sent once.
        self._matrices: dict[int, tuple[int, int | None]] = {}
        self._program = program
        names = (program.buffers, program.states, program.memories)
        self._buffers, self._states, self._memories = (
            {name: i for i, name in enumerate(table)} for table in names
        )
        operations = [self._operation(one) for one in program.operations]
        memories = [
            MemoryStruct(LAYOUTS[m.layout], m.heads, m.places, m.depth)
            for m in program.memories.values()
        ]
        words, word_scale = self._matrix(program.words)
        places = program.places
        self.spec = SpecStruct(
            abi=VERSION,
            precision=self._code,
            vocab=program.vocab,
            word_width=program.words.shape[1],
            positions=positions,
            places=0 if places is None else len(places),
            place_offset=program.offset,
            words=words,
            word_scale=word_scale,
            place_table=self._floats(places),
            buffers=len(program.buffers),
            states=len(program.states),
            caches=len(program.caches),
            memories=len(memories),
            operations=len(operations),
            buffer_width=self._ints(list(program.buffers.values())),
            state_width=self._ints(list(program.states.values())),
            cache_width=self._ints(program.caches),
            memory=(MemoryStruct * max(len(memories), 1))(*memories),
            operation=(OperationStruct * len(operations))(*operations),
        )

    # ---- arrays ------------------------------------------------------------------------------

    def _keep(self, array: npt.NDArray[Any]) -> int:
        self._held.append(array)
        return int(array.ctypes.data)

    def _floats(self, array: npt.NDArray[Any] | None) -> int | None:
        return None if array is None else self._keep(np.ascontiguousarray(array, np.float32))

    def _ints(self, values: list[int]) -> int:
        return self._keep(np.array(values or [0], np.int32))

    def _matrix(self, weight: npt.NDArray[np.float32]) -> tuple[int, int | None]:
        """Addresses of a matrix [out, in] as it is stored and of its scales."""
        key = id(weight)
        if key not in self._matrices:
            self._held.append(weight)  # its id stays its own
            packed, scale = pack(weight, self._dtype)
            self._matrices[key] = (self._keep(packed), self._floats(scale))
        return self._matrices[key]

    # ---- operations --------------------------------------------------------------------------

    def _operation(self, op: Operation) -> OperationStruct:
        made = OperationStruct(kind=KINDS[type(op)], keep=-1, residual=NO_RESIDUAL)
        made.out = made.state = made.cache = made.query = made.keys = made.values = -1
        if isinstance(op, Product):
            self._product(made, op)
            return made
        made.query, made.out = self._buffers[op.query], self._buffers[op.out]
        if isinstance(op, Attention):
            made.heads, made.product_scale, made.cache = op.heads, op.scale, op.cache
            if op.keys:
                made.keys, made.values = self._memories[op.keys], self._memories[op.values]
            return made
        made.keys, made.values = self._memories[op.annotation], self._memories[op.scored]
        made.score = self._floats(op.score)
        return made

    def _product(self, made: OperationStruct, op: Product) -> None:
        made.segments = len(op.parts)
        for i, part in enumerate(op.parts):
            tables = {"buffer": self._buffers, "words": {"": 0}}
            index = tables.get(part.kind, self._states)[part.name]
            made.segment[i] = SegmentStruct(PARTS[part.kind], index, part.width)
        inputs, linear, norm = sum(part.width for part in op.parts), op.linear, op.norm
        if (
            linear.inputs != inputs
            or (linear.bias is not None and linear.bias.shape != (linear.outputs,))
            or (norm is not None and {norm.weight.shape, norm.bias.shape} != {(inputs,)})
        ):
            raise EngineError(f"a product of {inputs} values has weights of another size")
        made.outputs, made.activation = op.linear.outputs, ACTIVATIONS[op.activation]
        if op.residual:
            words = op.residual == WORDS
            made.residual = RESIDUAL_WORDS if words else self._buffers[op.residual]
        if op.keep:
            made.keep, made.keep_normed = self._buffers[op.keep], int(op.keep_normed)
        made.to = TARGETS[op.to]
        if op.to in ("lstm", "gru"):
            made.out = self._states[op.out]
            made.state = self._states[op.state] if op.state else -1
        elif op.out:
            made.out = self._buffers[op.out]
        made.cache = op.cache
        made.weight, made.scale = self._matrix(op.linear.weight)
        made.bias = self._floats(op.linear.bias)
        if op.norm is not None:
            made.eps = op.norm.eps
            made.gamma, made.beta = self._floats(op.norm.weight), self._floats(op.norm.bias)


def pack(
    weight: npt.NDArray[np.float32], dtype: npt.DTypeLike
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """A float matrix [out, in] as the kernels read it, [out, stride], and the scales of int8.

    int8 is symmetric with one scale a row, the row's largest value over 127. Raises EngineError for
    values that float16 does not hold.
    """
    kind = np.dtype(dtype)
    unit = ROW_BYTES // kind.itemsize
    padded = np.zeros((len(weight), -(-weight.shape[1] // unit) * unit), kind)
    inside = padded[:, : weight.shape[1]]
    if kind != np.int8:
        if kind == np.float16 and np.abs(weight).max(initial=0) > np.finfo(np.float16).max:
            raise EngineError("the decoder's weights are too large for fp16; decode in fp32")
        inside[:] = weight
        return padded, None
    scale = np.abs(weight).max(axis=1) / np.float32(127)
    scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
    inside[:] = np.rint(weight / scale[:, None])
    return padded, scale
