"""The CPU kernels' recurrent steps against torch's own cells, whatever the sizes and parents."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.engines.cuda_spec import Linear, Look, RecurrentSpec
from edgecap.runtime.engines.native_spec import packed

torch = pytest.importorskip("torch")
POSITIONS = 4
SIZES = st.fixed_dictionaries(
    {
        "lstm": st.booleans(),
        "vocab": st.integers(2, 70),
        "width": st.integers(1, 40),
        "hidden": st.integers(1, 70),
        "places": st.integers(0, 21),
        "annotation": st.integers(1, 70),
        "scores": st.integers(1, 40),
        "batch": st.integers(1, 3),
        "beams": st.integers(1, 6),
        "threads": st.integers(1, 3),
        "seed": st.integers(0, 2**16),
    }
)


class Network:
    """A recurrent decoder out of torch's layers."""

    def __init__(self, size: dict[str, Any]) -> None:
        nn = torch.nn
        torch.manual_seed(size["seed"])
        self.size = size
        vocab, width, hidden = size["vocab"], size["width"], size["hidden"]
        self.words = nn.Embedding(vocab, width)
        self.looks = size["places"] > 0
        extra = size["annotation"] if self.looks else 0
        cell = nn.LSTMCell if size["lstm"] else nn.GRUCell
        self.cell = cell(width + extra, hidden)
        self.head = nn.Linear(width if self.looks else hidden, vocab)
        if self.looks:
            self.query = nn.Linear(hidden, size["scores"] + 1)
            self.score = nn.Linear(size["scores"], 1, bias=False)
            self.read_state = nn.Linear(hidden, width, bias=False)
            self.read_context = nn.Linear(extra, width)

    def step(self, token: Any, state: Any, annotations: Any, scores: Any) -> tuple[Any, Any]:
        """token [R]; state (h, c) or h of the rows' parents; logits [R, V] and the new state."""
        word = self.words(token)
        old = state[0] if self.size["lstm"] else state
        given = word
        if self.looks:
            query = self.query(old)
            seen = torch.tanh(query[:, None, :-1] + scores)
            share = torch.softmax(self.score(seen)[..., 0], dim=-1)
            context = torch.sigmoid(query[:, -1:]) * (share[:, None] @ annotations)[:, 0]
            given = torch.cat([word, context], dim=1)
        new = self.cell(given, state)
        hidden = new[0] if self.size["lstm"] else new
        if self.looks:
            read = word + self.read_state(hidden) + self.read_context(context)
            return self.head(torch.tanh(read)), new
        return self.head(hidden), new

    def spec(self) -> RecurrentSpec:
        """The same weights, as the graph's reader would find them."""
        width = self.size["width"]
        of_input = self.cell.weight_ih.numpy()
        look = None
        if self.looks:
            look = Look(
                self.size["places"],
                linear(self.query),
                self.score.weight.numpy()[0],
                Linear(np.ascontiguousarray(of_input[:, width:])),
                linear(self.read_state),
                linear(self.read_context),
            )
        return RecurrentSpec(
            "lstm" if self.size["lstm"] else "gru",
            self.words.weight.numpy(),
            Linear(np.ascontiguousarray(of_input[:, :width]), self.cell.bias_ih.numpy()),
            Linear(self.cell.weight_hh.numpy(), self.cell.bias_hh.numpy()),
            look,
            linear(self.head),
        )


def linear(layer: Any) -> Linear:
    return Linear(layer.weight.numpy(), None if layer.bias is None else layer.bias.numpy())


@settings(max_examples=40, deadline=None)
@given(SIZES)
def test_steps_are_those_of_torch(size: dict[str, Any]) -> None:
    native = importlib.import_module("edgecap._native")
    rng = np.random.default_rng(size["seed"])
    batch, beams, rows = size["batch"], size["beams"], size["batch"] * size["beams"]
    with torch.no_grad():
        network = Network(size)
        decoder = native.StepDecoder(
            packed(network.spec(), POSITIONS),
            precision="fp32",
            head_precision="fp32",
            threads=size["threads"],
            kernel="",
        )
        run = native.StepRun(decoder, batch, beams)
        state = rng.normal(size=(2, batch, size["hidden"])).astype(np.float32)
        run.set_state(state[0], state[1] if size["lstm"] else None)
        many = torch.from_numpy(np.repeat(state, beams, axis=1))
        carried: Any = (many[0], many[1]) if size["lstm"] else many[0]
        kinds = ("annotation", "scores")
        seen = [
            rng.normal(size=(batch, size["places"], size[kind])).astype(np.float32)
            for kind in kinds
        ]
        if network.looks:
            run.set_annotations(*seen)
        tiled = [torch.from_numpy(np.repeat(one, beams, axis=0)) for one in seen]
        logits = np.zeros((rows, size["vocab"]), np.float32)
        ancestry = np.zeros((rows, beams * POSITIONS), np.bool_)
        for position in range(POSITIONS):
            tokens = rng.integers(0, size["vocab"], rows)
            own = np.arange(rows) // beams * beams
            parents = own + rng.integers(0, beams, rows)
            if size["lstm"]:
                carried = (carried[0][parents], carried[1][parents])
            else:
                carried = carried[parents]
            wanted, carried = network.step(torch.from_numpy(tokens), carried, *tiled)
            run.step(tokens, parents, position, ancestry, logits)
            assert np.allclose(logits, wanted.numpy(), rtol=1e-4, atol=2e-5)


def test_what_does_not_fit_is_refused() -> None:
    native = importlib.import_module("edgecap._native")
    size = {"lstm": True, "vocab": 5, "width": 3, "hidden": 4, "places": 2, "annotation": 6}
    with torch.no_grad():
        spec = packed(Network({**size, "scores": 2, "seed": 0}).spec(), POSITIONS)
    common: dict[str, Any] = {"head_precision": "fp32", "threads": 1, "kernel": ""}
    with pytest.raises(ValueError, match=r"the query is not"):
        native.StepDecoder({**spec, "score": np.zeros(3, np.float32)}, precision="fp32", **common)
    with pytest.raises(ValueError, match=r"no precision int8-weights"):
        native.StepDecoder(spec, precision="int8-weights", **common)
    run = native.StepRun(native.StepDecoder(spec, precision="int8", **common), 2, 2)
    state = np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="an LSTM has a cell"):
        run.set_state(state, None)
    with pytest.raises(ValueError, match=r"the state is not \[B, H\]"):
        run.set_state(state[:1], state)
    with pytest.raises(ValueError, match="annotations are not"):
        run.set_annotations(np.zeros((2, 2, 5), np.float32), np.zeros((2, 2, 2), np.float32))
    with pytest.raises(ValueError, match="no Transformer"):
        run.set_first(state)
    rows, mask = np.zeros(4, np.int64), np.zeros((4, 2 * POSITIONS), np.bool_)
    with pytest.raises(IndexError, match="a parent is no row"):
        run.step(rows, rows + 4, 0, mask, np.zeros((4, 5), np.float32))
