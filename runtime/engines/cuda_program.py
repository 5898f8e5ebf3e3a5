"""The launches of one decoding step, in order, of a decoder that ``cuda_spec`` describes.

A step is a list of products and attentions over named rows of floats. What stands between two
products of the graph (norm, bias, activation, residual, key and value slots, recurrent cells) is
part of one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgecap.runtime.engines.cuda_spec import (
    DecoderSpec,
    Floats,
    Linear,
    Norm,
    RecurrentSpec,
    TransformerSpec,
)

WORDS = "words"  # the embedding of each row's token, as an input or a residual


@dataclass(frozen=True)
class Part:
    """A part of a product's input. kind : "words", "buffer", "parent" or "state" (of this step)"""

    kind: str
    name: str
    width: int


@dataclass(frozen=True)
class Product:
    """out = activation(linear(norm(parts)) + residual).

    to : "buffer", "qkv", "lstm", "gru" or "logits"; of cells ``out`` is the state h
    keep : the buffer that gets the input, after its norm where ``keep_normed``
    cache : of "qkv"
    """

    parts: tuple[Part, ...]
    linear: Linear
    to: str
    out: str = ""
    norm: Norm | None = None
    activation: str = ""
    residual: str = ""
    keep: str = ""
    keep_normed: bool = False
    cache: int = -1
    state: str = ""


@dataclass(frozen=True)
class Attention:
    """Heads of ``query`` over a memory (its keys' and values' names), a cache, or both."""

    query: str
    out: str
    heads: int
    scale: float
    keys: str = ""
    values: str = ""
    cache: int = -1


@dataclass(frozen=True)
class Additive:
    """Additive attention with a gate; see ``cuda_spec.Look``."""

    query: str
    out: str
    annotation: str
    scored: str
    score: Floats


Operation = Product | Attention | Additive


@dataclass(frozen=True)
class Memory:
    """How a picture's tensor lies. layout : "same", "keys", "rows" or "first" (decoder_api.h)"""

    layout: str
    heads: int
    places: int
    depth: int


@dataclass
class Program:
    """buffers, states and memories by name, in the order of the library; states are ``carry.*``"""

    words: Floats
    places: Floats | None
    offset: int
    vocab: int
    buffers: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    caches: list[int] = field(default_factory=list)
    memories: dict[str, Memory] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)


def write_program(spec: DecoderSpec) -> Program:
    return _transformer(spec) if isinstance(spec, TransformerSpec) else _recurrent(spec)


# ---- Transformers ----------------------------------------------------------------------------


class _Stream:
    """The residual stream x while a step is written down.

    With norms before the branches x is a buffer of sums, and each branch norms what it reads. With
    norms after them a branch leaves its sum in ``sum``, and whoever reads it next norms it and
    keeps that as x.
    """

    def __init__(self, spec: TransformerSpec) -> None:
        self.before, self.width = spec.before, spec.width
        self.source = Part("words", "", spec.width)
        self.pending = spec.norm_words

    def read(self, own: Norm) -> dict[str, object]:
        """Arguments of the product that begins a branch; ``own`` is its norm where norms stand
        before."""
        source = self.source
        if self.before:
            fresh = source.kind == "words"
            self.source = Part("buffer", "x", self.width)
            return {"parts": (source,), "norm": own, "keep": "x" if fresh else ""}
        norm, self.pending = self.pending, None
        self.source = Part("buffer", "x", self.width)
        return {"parts": (source,), "norm": norm, "keep": "x", "keep_normed": True}

    def write(self, own: Norm) -> dict[str, str]:
        """Arguments of the product that ends a branch."""
        if self.before:
            return {"to": "buffer", "out": "x", "residual": "x"}
        self.source, self.pending = Part("buffer", "sum", self.width), own
        return {"to": "buffer", "out": "sum", "residual": "x"}


def _transformer(spec: TransformerSpec) -> Program:
    width = spec.width
    program = Program(spec.words, spec.places, spec.offset, spec.vocab)
    hidden = max(layer.up.outputs for layer in spec.layers)
    program.buffers = {"x": width, "query": width, "mixed": width, "hidden": hidden}
    if not spec.before:
        program.buffers["sum"] = width
    stream, add = _Stream(spec), program.operations.append
    mixed = (Part("buffer", "mixed", width),)
    for i, layer in enumerate(spec.layers):
        keys, values = f"memory.key.{i}", f"memory.value.{i}"
        if spec.memory:
            depth = width // spec.heads
            kinds = ("rows", "rows") if spec.memory_rows else ("keys", "same")
            for name, kind in zip((keys, values), kinds, strict=True):
                program.memories[name] = Memory(kind, spec.heads, spec.memory, depth)
        program.caches.append(width)
        add(_product(stream.read(layer.norm), linear=layer.qkv, to="qkv", out="query", cache=i))
        seen = {} if layer.cross or not spec.memory else {"keys": keys, "values": values}
        add(Attention("query", "mixed", spec.heads, layer.scale, cache=i, **seen))
        add(_product(stream.write(layer.norm), parts=mixed, linear=layer.out))
        if layer.cross is not None:
            cross = layer.cross
            add(_product(stream.read(cross.norm), linear=cross.query, to="buffer", out="query"))
            add(Attention("query", "mixed", spec.heads, cross.scale, keys, values))
            add(_product(stream.write(cross.norm), parts=mixed, linear=cross.out))
        up = {"linear": layer.up, "activation": layer.activation}
        add(_product(stream.read(layer.feed_norm), **up, to="buffer", out="hidden"))
        below = (Part("buffer", "hidden", layer.up.outputs),)
        add(_product(stream.write(layer.feed_norm), parts=below, linear=layer.down))
    if spec.first:
        program.memories["memory.first"] = Memory("first", 1, 1, width)
    last: dict[str, object] = {"parts": (stream.source,), "norm": stream.pending or spec.norm}
    if spec.transform is not None:
        transform = spec.transform
        program.buffers["transformed"] = transform.layer.outputs
        made = {"linear": transform.layer, "activation": transform.activation}
        add(_product(last, **made, to="buffer", out="transformed"))
        part = Part("buffer", "transformed", transform.layer.outputs)
        last = {"parts": (part,), "norm": transform.norm}
    add(_product(last, linear=spec.head, to="logits"))
    return program


def _product(given: dict[str, object] | dict[str, str], **more: object) -> Product:
    return Product(**{**given, **more})  # type: ignore[arg-type]


# ---- recurrent decoders ----------------------------------------------------------------------


def _recurrent(spec: RecurrentSpec) -> Program:
    program = Program(spec.words, None, 0, spec.vocab)
    hidden, look = spec.hidden, spec.look
    program.states = {"carry.h": hidden}
    if spec.cell == "lstm":
        program.states["carry.c"] = hidden
    word = Part("words", "", spec.words.shape[1])
    before, after = (Part(kind, "carry.h", hidden) for kind in ("parent", "state"))
    add = program.operations.append
    parts, inputs = [word], [spec.inputs]
    if look is not None:
        scores, width = len(look.score), look.from_context.inputs
        program.buffers = {"query": scores + 1, "context": width, "read": look.read_state.outputs}
        program.memories = {
            "memory.annotation": Memory("same", 1, look.places, width),
            "memory.score": Memory("same", 1, look.places, scores),
        }
        add(Product((before,), look.query, "buffer", "query"))
        add(Additive("query", "context", "memory.annotation", "memory.score", look.score))
        parts.append(Part("buffer", "context", width))
        inputs.append(look.from_context)
    cell = join_gates(spec.cell, inputs, spec.recurrent)
    state = "carry.c" if spec.cell == "lstm" else ""
    add(Product((*parts, before), cell, spec.cell, "carry.h", state=state))
    if look is None:
        add(Product((after,), spec.head, "logits"))
        return program
    deep = _beside([look.read_state, look.read_context])
    context = parts[1]
    add(Product((after, context), deep, "buffer", "read", activation="tanh", residual=WORDS))
    add(Product((Part("buffer", "read", deep.outputs),), spec.head, "logits"))
    return program


def _beside(linears: list[Linear]) -> Linear:
    """One product of joined inputs in place of a sum of products."""
    bias = sum((one.bias for one in linears if one.bias is not None), np.float32(0))
    weight = np.concatenate([one.weight for one in linears], 1)
    return Linear(weight, np.broadcast_to(bias, len(weight)).astype(np.float32))


def join_gates(cell: str, inputs: list[Linear], recurrent: Linear) -> Linear:
    """One product of [inputs, h] with four neighbouring outputs a unit: i, f, g, o of an LSTM; of a
    GRU r, z, and the candidate's two parts apart, for the reset gate stands between them."""
    given = _beside(inputs)
    both = _beside([given, recurrent])
    assert both.bias is not None
    assert given.bias is not None
    count, hidden = (4 if cell == "lstm" else 3), recurrent.inputs
    weight = both.weight.reshape(count, hidden, -1)
    bias = both.bias.reshape(count, hidden)
    if cell == "gru":
        of_input, of_state = weight[2].copy(), weight[2].copy()
        of_input[:, given.inputs :] = 0
        of_state[:, : given.inputs] = 0
        weight = np.stack([weight[0], weight[1], of_input, of_state])
        input_bias = given.bias.reshape(count, hidden)[2]
        bias = np.stack([bias[0], bias[1], input_bias, bias[2] - input_bias])
    return Linear(
        np.ascontiguousarray(weight.transpose(1, 0, 2).reshape(4 * hidden, -1)),
        np.ascontiguousarray(bias.T.reshape(-1)),
    )
