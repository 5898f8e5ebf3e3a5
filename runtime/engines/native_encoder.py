"""The encoder of the CPU engine: own kernels where they can, ONNX Runtime elsewhere.

Own kernels take convolutional encoders of int8 bundles: convolutions with the integers and scales
that the bundle has, and products in int8 with a scale a row, as the decoder's. See encoder_cut.py,
and docs/cpu_engine.md.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.engines.cuda_onnx import Unlike
from edgecap.runtime.engines.encoder_cut import LEAST, cut_encoder
from edgecap.runtime.engines.onnx import describe_graph, open_session
from edgecap.runtime.engines.onnx_weights import (
    describe_model,
    load_model,
    stores_whole_numbers,
)
from edgecap.runtime.manifest import GraphSpec

CONVOLUTION = b"\x22\x04Conv"  # NodeProto's op_type, as protobuf writes it


class Encoder(Protocol):
    """What makes an encoder's outputs.

    table : its inputs and outputs
    summary : what runs it, in a few words
    """

    table: GraphSpec
    summary: str

    def run(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name of uint8 [B, S, S, 3]. Safe to call from several threads."""
        ...


class OnnxEncoder:
    """An ``Encoder`` in ONNX Runtime."""

    def __init__(self, data: bytes, file: str, threads: int) -> None:
        self._session = open_session(data, file, threads)
        self.table = describe_graph(self._session, file)
        self.summary = "ONNX Runtime"
        self._outputs = [spec.name for spec in self.table.outputs]

    def run(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """See ``Encoder``."""
        made = self._session.run(self._outputs, {"image": images})
        return dict(zip(self._outputs, made, strict=True))


class NativeEncoder:
    """An ``Encoder`` of own kernels; what they do not compute runs in ONNX Runtime behind them.

    model : as ``load_model`` gives it; it is taken apart
    size : S, a picture's sides

    Raises ``Unlike`` for a graph that the kernels do not take.
    """

    def __init__(
        self, native: Any, model: Any, file: str, size: int, threads: int, kernel: str
    ) -> None:
        self.table = describe_model(model, file)
        cut = cut_encoder(model, size)
        try:
            self._encoder = native.Encoder(cut.spec, threads=threads, kernel=kernel)
        except ValueError as error:
            raise Unlike(str(error)) from None
        self._outputs, self._inputs, self._rest_outputs = cut.outputs, cut.inputs, cut.rest
        self._rest: Any = None
        self._sees_picture = any(value.name == "image" for value in model.graph.input)
        self.summary = "own CPU kernels in int8"
        if cut.rest:
            # What is left beside own outputs is little: more threads would only be in the way.
            few = 1 if cut.outputs else threads
            self._rest = open_session(model.SerializeToString(), file, few)
            if not cut.outputs:  # the convolutions alone are ours
                self.summary = "convolutions by own CPU kernels in int8, the rest in ONNX Runtime"

    @property
    def weight_bytes(self) -> int:
        """Of the packed weights."""
        return int(self._encoder.bytes)

    def run(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """See ``Encoder``."""
        batch = len(images)
        made = {
            name: np.empty((batch, *shape), np.float32)
            for name, shape in (*self._outputs, *self._inputs)
        }
        self._encoder.run(np.ascontiguousarray(images), list(made.values()))
        if self._rest is not None:
            given: dict[str, Any] = {name: made.pop(name) for name, _ in self._inputs}
            if self._sees_picture:
                given["image"] = images
            rest = self._rest.run(self._rest_outputs, given)
            made.update(zip(self._rest_outputs, rest, strict=True))
        return made


def read_own(bundle: Bundle) -> Any | None:
    """The encoder's graph where own kernels may run it, as ``load_model`` gives it, else None."""
    file = bundle.manifest.graphs.encoder.file
    data = bundle.files[file]
    # Counted before the graph is read: one of a vision transformer is large.
    if data.count(CONVOLUTION) < LEAST:
        return None
    model = load_model(data, file)
    return model if stores_whole_numbers(model) else None


def open_encoder(
    bundle: Bundle, native: Any, *, threads: int, kernel: str = "", whole: bool = True
) -> Encoder:
    """The encoder of a bundle.

    native : the module ``edgecap._native``
    whole : whether products may be in int8, so that own kernels may run it; they do where the
        bundle's graph is in int8, too
    """
    file = bundle.manifest.graphs.encoder.file
    if whole and (model := read_own(bundle)) is not None:
        size = bundle.manifest.image.size
        try:
            return NativeEncoder(native, model, file, size, threads, kernel)
        except Unlike:
            pass
    return OnnxEncoder(bundle.files[file], file, threads)
