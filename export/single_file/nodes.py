"""A list of ONNX nodes and constants that grows one operator at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


class Nodes:
    """Nodes and constants of one graph, or of one Loop body.

    prefix : stands before every name that is made here, so that a body's names are not its
        outer graph's

    >>> nodes = Nodes("search/")
    >>> total = nodes("Add", "a", "b")
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def __call__(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node with one output; gives its name, ``name`` where that is given."""
        return self.several(operator, 1, *inputs, names=(name,) if name else (), **attributes)[0]

    def several(
        self,
        operator: str,
        count: int,
        *inputs: str,
        names: tuple[str, ...] = (),
        **attributes: Any,
    ) -> tuple[str, ...]:
        """Add a node with ``count`` outputs; gives their names."""
        from onnx import helper

        label = f"{self.prefix}{operator}_{len(self.nodes)}"
        outputs = names or tuple(f"{label}.{k}" for k in range(count))
        node = helper.make_node(operator, list(inputs), list(outputs), label, **attributes)
        self.nodes.append(node)
        return outputs

    def constant(self, value: Any, dtype: Any) -> str:
        """The name of a constant of numbers; equal ones are stored once."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = f"{self.prefix}constant_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def whole(self, value: Any) -> str:
        """An int64 constant."""
        return self.constant(value, np.int64)

    def real(self, value: Any) -> str:
        """A float32 constant."""
        return self.constant(value, np.float32)

    def strings(self, values: list[bytes], shape: tuple[int, ...]) -> str:
        """A constant of strings, UTF-8 each; equal ones are stored once."""
        from onnx import TensorProto, helper

        key = ("", shape, b"\0".join(values))
        if key not in self._known:
            self._known[key] = f"{self.prefix}constant_{len(self.constants)}"
            texts: Any = values  # the package's own hint leaves strings out
            tensor = helper.make_tensor(self._known[key], TensorProto.STRING, shape, texts)
            self.constants.append(tensor)
        return self._known[key]
