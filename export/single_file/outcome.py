"""The last state of the search as the outputs of the whole graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecap.export.single_file.nodes import Nodes
from edgecap.export.single_file.search import Plan, State
from edgecap.export.single_file.words import Pieces, caption_nodes
from edgecap.runtime.confidence import LOWEST_LOGPROB
from edgecap.runtime.decoding.search import NOTHING
from edgecap.runtime.manifest import ConfidenceSpec, Manifest

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Output:
    """One output: its name, dtype ("str" is a string), shape and what it is, in a line."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    text: str

    def info(self) -> onnx.ValueInfoProto:
        from onnx import TensorProto, helper

        kind: int = TensorProto.STRING
        if self.dtype != "str":
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        return helper.make_tensor_value_info(self.name, kind, self.shape, self.text)


def outcome(
    g: Nodes, plan: Plan, state: State, pieces: Pieces, manifest: Manifest, encoded: dict[str, str]
) -> list[Output]:
    """Nodes for every output of the file; gives what they are.

    encoded : the encoder's outputs -> their names in ``g``
    """
    count, limit = plan.options.num_return_sequences, plan.limit
    zero, one, rows = g.whole([0]), g.whole([1]), g.whole([count])
    lengths = g("Slice", state.pool_lengths, zero, rows, zero, name="length")
    inside = g("Less", g.whole(np.arange(limit)), g("Unsqueeze", lengths, one))
    cut = (g.whole([0, 1]), g.whole([count, limit + 1]), g.whole([0, 1]))
    said = g("Slice", state.pool_sequences, *cut)
    tokens = g("Where", inside, said, g.whole(plan.special.pad), name="tokens")
    history = g("Slice", state.pool_history, *cut)
    g("Where", inside, history, g.real(0), name="logprobs")
    scores = g("Slice", state.pool_scores, zero, rows, zero)
    g("Where", g("Greater", lengths, g.whole(0)), scores, g.real(NOTHING), name="score")
    caption_nodes(g, pieces, tokens, count, limit, "caption")
    outputs = [
        Output("caption", "str", (count,), "the sentences, best first"),
        Output("tokens", "int64", (count, limit), "their tokens, end token too; then padding"),
        Output("length", "int64", (count,), "how many tokens each has; 0 where there is none"),
        Output("score", "float32", (count,), "summed log-probability / length ** length_penalty"),
        Output("logprobs", "float32", (count, limit), "log-probability of each token; then 0"),
        Output("confidence", "float32", (), "probability that the best sentence fits"),
        Output("sure", "bool", (), "whether that is not under the model's floor"),
    ]
    shapes = {item.name: item.shape for item in manifest.graphs.encoder.outputs}
    if "features" in shapes:
        g("Squeeze", encoded["features"], zero, name="features")
        side = int(shapes["features"][1])
        outputs.append(Output("features", "float32", (side,), "of the picture, unit length"))
    if "novelty" in shapes:
        g("Squeeze", encoded["novelty"], zero, name="novelty")
        text = "0 for a typical photograph, more for strange pictures"
        outputs.append(Output("novelty", "float32", (), text))
    _confidence(g, plan, state, manifest.confidence, "novelty" in shapes)
    return outputs


def _confidence(
    g: Nodes, plan: Plan, state: State, params: ConfidenceSpec | None, novelty: bool
) -> None:
    """``confidence`` and ``sure`` as in ``runtime/confidence.py``."""
    first = g.whole(0)
    length = g("Gather", state.pool_lengths, first)
    found = g("Greater", length, g.whole(0))
    # Column 0 is BOS.
    number = g.whole(np.arange(plan.columns))
    inside = g("And", g("LessOrEqual", number, length), g("Greater", number, g.whole(0)))
    lowest = g.real(LOWEST_LOGPROB)
    logprobs = g("Max", g("Gather", state.pool_history, first), lowest)
    total = g("ReduceSum", g("Where", inside, logprobs, g.real(0)), keepdims=0)
    real_length = g("Cast", length, to=1)
    mean = g("Div", total, g("Max", real_length, g.real(1)))
    mean = g("Where", found, mean, lowest)
    if params is None:
        g("Exp", g("Min", mean, g.real(0)), name="confidence")
        g("Identity", g.constant(True, np.bool_), name="sure")
        return
    least = g("ReduceMin", g("Where", inside, logprobs, g.real(np.inf)), keepdims=0)
    features = {
        "mean_logprob": mean,
        "min_logprob": g("Where", found, least, lowest),
        "length": real_length,
        "novelty": "novelty" if novelty else g.real(0),
        "margin": g.real(0),
    }
    if plan.beams > 1:
        scores = [g("Gather", state.pool_scores, g.whole(k)) for k in (0, 1)]
        second = g("Greater", g("Gather", state.pool_lengths, g.whole(1)), first)
        features["margin"] = g("Where", second, g("Sub", *scores), g.real(0))
    odds = g.real(params.intercept)
    for name, weight in params.weights.items():
        if weight:
            odds = g("Add", odds, g("Mul", features[name], g.real(weight)))
    value = g("Sigmoid", g("Clip", odds, g.real(-60), g.real(60)))
    # NaN gives 0, as there.
    value = g("Where", g("IsNaN", odds), g.real(0), value, name="confidence")
    g("GreaterOrEqual", value, g.real(params.floor), name="sure")
