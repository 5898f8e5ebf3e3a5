"""An encoder's graph in two: what the CPU kernels compute, and the rest for ONNX Runtime.

The kernels take the convolutions (encoder_chain.py) and as much as they can of what follows
(encoder_head.py). The rest gets their last tensors as inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgecap.runtime.engines.cuda_onnx import Unlike, require
from edgecap.runtime.engines.encoder_chain import FLOAT, ChainReader
from edgecap.runtime.engines.encoder_head import HeadReader, Shape

LEAST = 8  # convolutions; one or two alone, as those that cut a picture in patches, gain nothing


@dataclass(frozen=True)
class Cut:
    """An encoder in two.

    spec : of ``_native.Encoder``
    outputs : of the encoder that the kernels give, by name, with their shape without the batch
    inputs : of the rest: tensors that the kernels give, too
    rest : names of the encoder's outputs that the rest gives
    """

    spec: dict[str, Any]
    outputs: list[tuple[str, Shape]]
    inputs: list[tuple[str, Shape]]
    rest: list[str]


def cut_encoder(model: Any, size: int) -> Cut:
    """Take the convolutions out of an encoder's graph, and what follows where it can be.

    model : as ``load_model`` gives it; it becomes the rest
    size : S, a picture's sides

    Raises ``Unlike`` for a graph whose convolutions are no chain that the kernels compute.
    """
    reader = ChainReader(model, size)
    reader.read()
    all_ = sum(node.op_type == "Conv" for node in reader.nodes)
    require(all_ >= LEAST, f"it has {all_} convolutions, a backbone has more")
    require(
        len(reader.chain) == all_, "its convolutions are no chain with Relu, Clip and Add alone"
    )
    picture = reader.seen
    require(picture is not None, "its convolutions do not see the picture")
    assert picture is not None
    sources = reader.sources()
    head = HeadReader(reader.graph, sources)
    results: list[dict[str, Any]] = []
    outputs: list[tuple[str, Shape]] = []
    rest: list[str] = []
    for name in reader.graph.outputs:
        kept = len(head.steps)
        try:
            result, shape = head.result(name)
        except Unlike:
            head.forget(kept)
            rest.append(name)
        else:
            results.append(result)
            outputs.append((name, shape))
    inputs: list[tuple[str, Shape]] = []
    tensors = head.tensors()
    for name in _keep_rest(model, rest, {*reader.maps, *tensors}):
        if name in reader.maps:
            results.append({"map": reader.maps[name]})
            inputs.append((name, sources[name].shape))
        else:
            step, shape = tensors[name]
            results.append({"step": step, "index": None})
            inputs.append((name, shape))
    _add_inputs(model, inputs)
    spec = {
        "picture": reader.picture_size,
        **picture.packed(),
        "boxes": reader.boxes.packed() if reader.boxes else None,
        "convolutions": [made.packed() for made in reader.chain],
        "steps": head.steps,
        "results": results,
    }
    return Cut(spec, outputs, inputs, rest)


def _keep_rest(model: Any, outputs: list[str], known: set[str]) -> list[str]:
    """Leave what ``outputs`` need beyond the tensors ``known``; those that they need of these."""
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    needed: set[str] = set()
    open_ = list(outputs)
    while open_:
        name = open_.pop()
        if name in needed:
            continue
        needed.add(name)
        if name not in known and name in producers:
            open_ += producers[name].input
    parts = {
        "node": [n for n in graph.node if any(o in needed and o not in known for o in n.output)],
        "initializer": [item for item in graph.initializer if item.name in needed],
        "input": [value for value in graph.input if value.name in needed],
        "output": [value for value in graph.output if value.name in outputs],
    }
    for name, part in parts.items():
        kept = [type(item).FromString(item.SerializeToString()) for item in part]
        graph.ClearField(name)
        getattr(graph, name).extend(kept)
    return sorted(needed & known)


def _add_inputs(model: Any, inputs: list[tuple[str, Shape]]) -> None:
    for name, shape in inputs:
        value = model.graph.input.add()
        value.name = name
        value.type.tensor_type.elem_type = FLOAT
        value.type.tensor_type.shape.dim.add().dim_param = "B"
        for side in shape:
            value.type.tensor_type.shape.dim.add().dim_value = side
