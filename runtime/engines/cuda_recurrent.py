"""Finds an LSTM or GRU decoder in a decoder graph, with additive attention or without. Whatever is
not exactly that raises ``Unlike``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgecap.runtime.engines.cuda_onnx import Graph, Unlike, require, tied
from edgecap.runtime.engines.cuda_spec import Floats, Linear, Look, RecurrentSpec


def read_recurrent(graph: Graph) -> RecurrentSpec:
    """Raises Unlike."""
    if "carry.h" not in graph.inputs:
        raise Unlike("it has no recurrent state named h")
    return _Reader(graph).read()


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.cell = "lstm" if "carry.c" in graph.inputs else "gru"
        self.annotated = "memory.annotation" in graph.inputs

    def read(self) -> RecurrentSpec:
        graph = self.graph
        inputs, recurrent = self._lstm() if self.cell == "lstm" else self._gru()
        head = graph.linear("logits")
        if not self.annotated:
            require(graph.same(head.source, "next.h"), "its words are not read from its state")
            word, hidden = graph.linear(inputs), graph.linear(recurrent)
            require(self._is_parent(hidden.source, "carry.h"), "its state is not its parent's")
            table = self._table(word.source)
            return RecurrentSpec(
                self.cell, table, word.what, hidden.what, None, tied(head.what, table)
            )
        return self._with_look(inputs, recurrent, head.source, head.what)

    # ---- cells -------------------------------------------------------------------------------

    def _lstm(self) -> tuple[str, str]:
        """What gives the inputs' part of the gates and the state's.

        h' = sigmoid(o) tanh(c'), c' = sigmoid(f) c + sigmoid(i) tanh(g), gates in this order:
        i, f, g, o.
        """
        graph = self.graph
        gate, squashed = _by(graph, graph.operands("next.h", "Mul"), "Sigmoid", "Tanh")
        require(graph.same(graph.node(squashed, "Tanh").input[0], "next.c"), "h is not of c")
        parts = graph.node("next.c", "Add").input
        kept, new = _by_factor(graph, parts, lambda name: self._is_parent(name, "carry.c"))
        forget = next(f for f in graph.operands(kept, "Mul") if graph.is_from(f, "Sigmoid"))
        enter, candidate = _by(graph, graph.operands(new, "Mul"), "Sigmoid", "Tanh")
        found = [
            graph.back(graph.node(name, kind).input[0])
            for name, kind in (
                (enter, "Sigmoid"),
                (forget, "Sigmoid"),
                (candidate, "Tanh"),
                (gate, "Sigmoid"),
            )
        ]
        split = graph.node(found[0], "Split")
        require(found == list(split.output), "its gates are not i, f, g, o of one sum")
        return self._sides(split.input[0])

    def _gru(self) -> tuple[str, str]:
        """h' = n + sigmoid(z) (h - n), n = tanh(n_x + sigmoid(r) n_h), gates r, z, n."""
        graph = self.graph
        new, moved = graph.operands("next.h", "Add")
        if not graph.is_from(new, "Tanh"):
            new, moved = moved, new
        keep, change = _by(graph, graph.operands(moved, "Mul"), "Sigmoid", "Sub")
        before, after = graph.operands(change, "Sub")
        require(
            self._is_parent(before, "carry.h") and graph.same(after, new), "it is no GRU's state"
        )
        inner = graph.operands(graph.node(new, "Tanh").input[0], "Add")
        given, product = inner if graph.is_from(inner[1], "Mul") else (inner[1], inner[0])
        factors = graph.operands(product, "Mul")
        reset = next((f for f in factors if graph.is_from(f, "Sigmoid")), None)
        require(reset is not None, "it is no GRU's candidate")
        assert reset is not None
        recurrent_n = next(f for f in factors if f != reset)
        r = graph.operands(graph.node(reset, "Sigmoid").input[0], "Add")
        z = graph.operands(graph.node(keep, "Sigmoid").input[0], "Add")
        by_input = graph.node(given, "Split")
        by_state = graph.node(recurrent_n, "Split")
        wanted = [(i, h) for i, h in zip(by_input.output, by_state.output, strict=True)]
        found = [tuple(map(graph.back, r)), tuple(map(graph.back, z))]
        found.append((graph.back(given), graph.back(recurrent_n)))
        require(
            [set(pair) for pair in found] == [set(pair) for pair in wanted],
            "its gates are not r, z, n of two products",
        )
        return by_input.input[0], by_state.input[0]

    def _sides(self, name: str) -> tuple[str, str]:
        """The two terms of the gates: of the inputs, and of the state alone."""
        a, b = self.graph.operands(name, "Add")
        for inputs, recurrent in ((a, b), (b, a)):
            if self._is_of_state(recurrent):
                return inputs, recurrent
        raise Unlike("its gates are no sum of inputs and state")

    def _is_of_state(self, name: str) -> bool:
        graph = self.graph
        node = graph.producers.get(graph.back(name))
        if node is not None and node.op_type == "Split":
            name = node.input[0]
        if not graph.is_linear(name):
            return False
        return self._is_parent(graph.linear(name).source, "carry.h")

    def _is_parent(self, name: str, state: str) -> bool:
        graph = self.graph
        if not graph.is_from(name, "Gather"):
            return False
        node = graph.node(name, "Gather")
        return graph.back(node.input[0]) == state and graph.back(node.input[1]) == "parent"

    def _table(self, name: str) -> Floats:
        node = self.graph.node(name, "Gather")
        require(self.graph.back(node.input[1]) == "token", "its inputs are not the words alone")
        table = self.graph.floats(node.input[0], 2)
        vocab = self.graph.linear("logits").what.outputs
        require(len(table) == vocab, "it reads other words than it says")
        return table

    # ---- the look at the picture -------------------------------------------------------------

    def _with_look(self, inputs: str, recurrent: str, read: str, head: Linear) -> RecurrentSpec:
        graph = self.graph
        word_name, context_name = graph.operands(inputs, "Add")
        if self._is_word(context_name):
            word_name, context_name = context_name, word_name
        word, from_context = graph.linear(word_name), graph.linear(context_name)
        table = self._table(word.source)
        context = from_context.source

        # One product of the state: its part of the scores, the gate, the cell's gates.
        split = graph.node(recurrent, "Split")
        parts = [graph.back(name) for name in split.output]
        state = graph.linear(split.input[0])
        require(self._is_parent(state.source, "carry.h"), "its state is not its parent's")
        require(len(parts) == 3 and graph.back(recurrent) == parts[2], "its state gives more")
        scores = int(graph.floats(split.input[1], 1)[0])
        whole = state.what
        assert whole.bias is not None
        query = Linear(whole.weight[: scores + 1], whole.bias[: scores + 1])
        hidden = Linear(whole.weight[scores + 1 :], whole.bias[scores + 1 :])

        gate, mixed = _by(graph, graph.operands(context, "Mul"), "Sigmoid", "MatMul")
        require(graph.back(graph.node(gate, "Sigmoid").input[0]) == parts[1], "another gate")
        shares, annotation = graph.operands(mixed, "MatMul")
        require(annotation == "memory.annotation", "it mixes something else than annotations")
        weighed = graph.node(graph.node(shares, "Softmax").input[0], "MatMul")
        seen = graph.node(weighed.input[0], "Tanh")
        terms = {graph.back(name) for name in graph.operands(seen.input[0], "Add")}
        require(terms == {parts[0], "memory.score"}, "its scores are of something else")

        deep = graph.node(read, "Tanh").input[0]
        ends = graph.operands(deep, "Add")
        require(any(graph.same(end, word.source) for end in ends), "words are left out")
        total = next(end for end in ends if not graph.same(end, word.source))
        of_state, of_context = graph.operands(total, "Add")
        if graph.same(graph.linear(of_context).source, "next.h"):
            of_state, of_context = of_context, of_state
        read_state, read_context = graph.linear(of_state), graph.linear(of_context)
        require(
            graph.same(read_state.source, "next.h") and graph.same(read_context.source, context),
            "its deep output reads something else",
        )
        places = graph.inputs["memory.annotation"].type.tensor_type.shape.dim[1].dim_value
        look = Look(
            int(places),
            query,
            graph.floats(weighed.input[1], 2)[:, 0],
            from_context.what,
            read_state.what,
            read_context.what,
        )
        return RecurrentSpec(self.cell, table, word.what, hidden, look, tied(head, table))

    def _is_word(self, name: str) -> bool:
        graph = self.graph
        if not graph.is_linear(name):
            return False
        source = graph.linear(name).source
        return graph.is_from(source, "Gather") and (
            graph.back(graph.node(source, "Gather").input[1]) == "token"
        )


def _by(graph: Graph, pair: tuple[str, str], first: str, second: str) -> tuple[str, str]:
    """The two operands, that of kind ``first`` before that of kind ``second``."""
    for a, b in (pair, (pair[1], pair[0])):
        if graph.is_from(a, first) and graph.is_from(b, second):
            return a, b
    raise Unlike(f"{pair[0]} and {pair[1]} are no {first} and {second}")


def _by_factor(graph: Graph, terms: Sequence[str], holds: Callable[[str], bool]) -> tuple[str, str]:
    """Of two products that with a factor for which ``holds``, and the other."""
    for a, b in ((terms[0], terms[1]), (terms[1], terms[0])):
        if any(holds(factor) for factor in graph.operands(a, "Mul")):
            return a, b
    raise Unlike(f"{terms[0]} and {terms[1]} hold no old state")
