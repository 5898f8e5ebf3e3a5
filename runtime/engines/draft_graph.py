"""A decoder's step graph turned into one that scores a whole sentence in a single pass.

The step graph of an attention family (docs/bundle.md) lets each of its K rows attend to the cache
and, by an identity mask over the K rows of this step, to itself. Let the rows be the K positions
of one sentence instead, the mask lower triangular and each row have its own position, and the same
weights compute teacher forcing: the logits of every position at once, with an empty cache. Two
nodes change; all else stays.
"""

from __future__ import annotations

from typing import Any

from edgecap.runtime.errors import EngineError


def sentence_graph(model: bytes) -> bytes:
    """The changed graph: ``token`` and ``position`` int64 [N], ``ancestry`` bool [N, S], as before.

    Raises EngineError where the graph is of another make, or the package onnx is not there.
    """
    try:
        import onnx
    except ImportError:
        raise EngineError(
            "drafts are verified with the package onnx: pip install 'edgecap[stream]'"
        ) from None
    graph = onnx.load_from_string(model)
    nodes = list(graph.graph.node)
    makers = {name: node for node in nodes for name in node.output}
    mask = [node for node in nodes if node.op_type == "Equal" and _one_range(node, makers)]
    place = [node for node in nodes if _first_of_position(node, makers)]
    if len(mask) != 1 or len(place) != 1:
        raise EngineError("this decoder's step graph is of a make whose drafts cannot be verified")
    # Equal(column of 0..K-1, row of 0..K-1): row i sees itself. With >= it sees its past, too.
    mask[0].op_type = "GreaterOrEqual"
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == place[0].output[0]:
                node.input[index] = place[0].input[0]
    graph.graph.node.remove(place[0])
    for entry in graph.graph.input:
        if entry.name == "position":
            entry.type.tensor_type.shape.Clear()
            entry.type.tensor_type.shape.dim.add().dim_param = "R"
    del graph.graph.value_info[:]  # shapes that held for one position
    return bytes(graph.SerializeToString())


def _one_range(node: Any, makers: dict[str, Any]) -> bool:
    """Whether both inputs of a comparison are one ``Range``, one of them as a column."""
    sides = []
    for name in node.input:
        maker = makers.get(name)
        if maker is not None and maker.op_type == "Unsqueeze":
            name = maker.input[0]
            maker = makers.get(name)
        if maker is None or maker.op_type != "Range":
            return False
        sides.append(name)
    column = makers[node.input[0]].op_type == "Unsqueeze"
    row = makers[node.input[1]].op_type == "Range"
    return bool(sides[0] == sides[1] and column and row)


def _first_of_position(node: Any, makers: dict[str, Any]) -> bool:
    """Whether a node takes the one number out of ``position`` seen as a list."""
    if node.op_type != "Gather":
        return False
    maker = makers.get(node.input[0])
    if maker is None or maker.op_type != "Reshape":
        return False
    return str(maker.input[0]) == "position"
