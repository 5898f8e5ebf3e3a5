"""The decoding loop as an ONNX Loop around a bundle's decoder graph."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from edgecap.export.single_file.nodes import Nodes
from edgecap.export.single_file.search import Plan, State, first_state, search_step
from edgecap.runtime.manifest import GraphSpec, TensorSpec

if TYPE_CHECKING:
    import onnx

DECODER, SEARCH = "decoder/", "search/"

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class _Carried:
    """One tensor that goes round: its name in a step, its first value and its value after a step,
    by their names, and what it is."""

    name: str
    first: str
    after: str
    dtype: str
    shape: Shape


def decoding_loop(
    g: Nodes, plan: Plan, decoder: onnx.ModelProto, spec: GraphSpec, encoded: dict[str, str]
) -> State:
    """Add to ``g`` the decoder's steps and the search around them; gives its last state.

    decoder : the bundle's graph, with ``DECODER`` before every name in it
    encoded : the encoder's outputs ``memory.*`` and ``carry.*`` -> their names in ``g``

    The Loop ends when the search is done.
    """
    from onnx import helper

    inputs = {item.name: item for item in spec.inputs}
    memory = [name for name in inputs if name.startswith("memory.")]
    for name in memory:
        g("Identity", encoded[name], name=DECODER + name)
    steps = _hoist(g, decoder, {DECODER + name for name in memory})

    search = Nodes(SEARCH)
    names = {field.name: SEARCH + field.name for field in fields(State)}
    state = State(**names | {"tokens": DECODER + "token", "parents": DECODER + "parent"})
    after, more = search_step(search, plan, DECODER + "logits", DECODER + "position", state)
    carried = [
        _Carried(name, g.constant(value, value.dtype), result, value.dtype.name, value.shape)
        for name, result, value in zip(
            astuple(state), astuple(after), first_state(plan).values(), strict=True
        )
    ]
    feed = Nodes("feed/")
    for name, item in inputs.items():
        kind, _, rest = name.partition(".")
        if kind == "carry":
            carried.append(_recurrent(g, plan, item, encoded[name], f"{DECODER}next.{rest}"))
        elif kind == "cache":
            carried.append(_cache(g, feed, search, plan, item, f"{DECODER}append.{rest}"))
        elif kind == "ancestry":
            carried.append(_ancestry(g, search, plan, after.parents))
    body = helper.make_graph(
        [*feed.nodes, *steps, *search.nodes],
        "step",
        [
            _info(DECODER + "position", "int64", ()),
            _info(SEARCH + "going", "bool", ()),
            *(_info(item.name, item.dtype, item.shape) for item in carried),
        ],
        [_info(more, "bool", ()), *(_info(c.after, c.dtype, c.shape) for c in carried)],
        [*feed.constants, *search.constants],
    )
    trips, going = g.whole(plan.limit), g.constant(True, np.bool_)
    first = [item.first for item in carried]
    ends = g.several("Loop", len(carried), trips, going, *first, body=body)
    return State(*ends[: len(names)])


def _hoist(g: Nodes, decoder: onnx.ModelProto, known: set[str]) -> list[onnx.NodeProto]:
    """Move to ``g`` the decoder's weights and all that no step changes; gives the nodes left."""
    left = []
    g.constants += decoder.graph.initializer
    known = known | {"", *(item.name for item in decoder.graph.initializer)}
    for node in decoder.graph.node:
        if known.issuperset(node.input) and not any(a.HasField("g") for a in node.attribute):
            g.nodes.append(node)
            known.update(node.output)
        else:
            left.append(node)
    return left


def _recurrent(g: Nodes, plan: Plan, item: TensorSpec, start: str, after: str) -> _Carried:
    """Recurrent state, the same for all beams at first; the decoder itself gathers it by parent."""
    shape = (plan.beams, *_fixed(item, 1))
    first = g("Expand", start, g.whole(shape))
    return _Carried(DECODER + item.name, first, after, item.dtype, shape)


def _cache(
    g: Nodes, feed: Nodes, search: Nodes, plan: Plan, item: TensorSpec, append: str
) -> _Carried:
    """What earlier steps appended. A cache that grows by K rows a step is faster than K * T slots
    that are mostly empty. It starts with K slots of no row's past: to ONNX a size of 0 can mean
    something else."""
    rest = _fixed(item, 2)
    rows = search("Unsqueeze", append, search.whole([0]))
    if plan.grows:
        name = DECODER + item.name
        first = g.constant(np.zeros((1, plan.beams, *rest)), np.dtype(item.dtype))
        after = search("Concat", name, rows, axis=1)
        return _Carried(name, first, after, item.dtype, (1, "slots", *rest))
    name = SEARCH + item.name
    shape = (plan.positions, plan.beams, *rest)
    first = g("Expand", g.constant(0, np.dtype(item.dtype)), g.whole(shape))
    slots = feed.whole((1, plan.positions * plan.beams, *rest))
    feed("Reshape", name, slots, name=DECODER + item.name)
    at = search("Reshape", DECODER + "position", search.whole([1, 1]))
    return _Carried(name, first, search("ScatterND", name, at, rows), item.dtype, shape)


def _ancestry(g: Nodes, search: Nodes, plan: Plan, parents: str) -> _Carried:
    """Which slots are a beam's own past: those of its parent, and the one of this step."""
    name, beams = DECODER + "ancestry", plan.beams
    moved = search("Gather", name, parents)
    own = search("Unsqueeze", parents, search.whole([1]))
    if plan.grows:
        first = g.constant(np.zeros((beams, beams)), np.bool_)
        own = search("Equal", own, search.whole(np.arange(beams)))
        after = search("Concat", moved, own, axis=1)
        return _Carried(name, first, after, "bool", (beams, "slots"))
    slots = plan.positions * beams
    first = g.constant(np.zeros((beams, slots)), np.bool_)
    own = search("Add", own, search("Mul", DECODER + "position", search.whole(beams)))
    own = search("Equal", own, search.whole(np.arange(slots)))
    return _Carried(name, first, search("Or", moved, own), "bool", (beams, slots))


def _fixed(item: TensorSpec, skip: int) -> tuple[int, ...]:
    return tuple(int(side) for side in item.shape[skip:])


def _info(name: str, dtype: str, shape: Shape) -> onnx.ValueInfoProto:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)
