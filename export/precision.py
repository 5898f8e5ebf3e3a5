"""The two float graphs of a model in another precision.

| precision    | encoder                                       | decoder                          |
|--------------|-----------------------------------------------|----------------------------------|
| fp32         | as it is                                      | as it is                         |
| fp16         | half precision                                | half precision, logits float32   |
| int8         | static QDQ of the layers that stand it        | int8 weights; large ones compute |
| int8-dynamic | linear layers, activations scaled at run time | the same                         |
| int8-weights | stored as int8, computed in float32           | the same                         |
| int4-weights | linear layers in blocks of 4 bits             | the same                         |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from edgecap.export.integer_matmuls import block_weights, dynamic_int8
from edgecap.export.quantize import (
    DYNAMIC,
    QuantizeOptions,
    quantisation_of,
    quantize_as_tuned,
    quantize_decoder,
    store_weights_int8,
)
from edgecap.export.sensitivity import PROBES, LayerError, choose_layers, measure_layers
from edgecap.export.static_quantization import CalibrationOptions, StaticQuantizer
from edgecap.runtime.errors import OptionsError
from edgecap.runtime.manifest import Quantisation

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic", "int8-weights", "int4-weights")
CALIBRATED = ("int8",)
TARGETS = ("onnxruntime", "tensorrt")


@dataclass(frozen=True)
class PrecisionOptions:
    """What the graphs become.

    target : whose spelling of the scales the graphs have: ONNX Runtime's CPU kernels (uint8
        activations, int32 biases) or TensorRT's parser (symmetric int8, float biases)
    budget : energy of the change of the encoder's outputs that int8 layers may add up to; what
        costs more is left in float
    """

    precision: str = "fp32"
    target: str = "onnxruntime"
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    budget: float = 0.01

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise OptionsError(f"precision {self.precision!r}; give one of {', '.join(PRECISIONS)}")
        if self.target not in TARGETS:
            raise OptionsError(f"target {self.target!r}; give one of {', '.join(TARGETS)}")
        if not self.budget >= 0:
            raise OptionsError(f"budget is {self.budget!r}; give 0 or more")


@dataclass(frozen=True)
class Converted:
    """Graphs, what the manifest says of them, and how each layer stood int8.

    layers : of the encoder, in its order; empty where none was measured
    float_layers : names of those that were left in float
    """

    encoder: onnx.ModelProto
    decoder: onnx.ModelProto
    quantisation: Quantisation
    layers: tuple[LayerError, ...] = ()
    float_layers: tuple[str, ...] = ()


class Converter:
    """Makes graphs of one precision; calibration and layer errors are computed once.

    pictures : uint8 [S, S, 3] RGB as the encoder takes them; read by static int8 alone
    fixed : what the model was fine-tuned for: its int8 is just that, and no layer is measured
    """

    def __init__(
        self,
        encoder: onnx.ModelProto,
        decoder: onnx.ModelProto,
        pictures: Sequence[npt.NDArray[np.uint8]],
        options: PrecisionOptions,
        threads: int = 2,
        fixed: QuantizeOptions | None = None,
    ) -> None:
        self.encoder, self.decoder, self.options = encoder, decoder, options
        self._fixed, self._pictures = fixed, pictures
        self._static: StaticQuantizer | None = None
        self._layers: list[LayerError] = []
        if options.precision == "int8" and fixed is None:
            self._static = StaticQuantizer(encoder, pictures, options.calibration)
            self._layers = measure_layers(self._static, pictures[:PROBES], threads)

    def convert(self, budget: float | None = None) -> Converted:
        """The graphs; ``budget`` in place of the options' for another try."""
        made = self._convert(budget)
        if self.options.target == "onnxruntime":
            return made
        from edgecap.export.tensorrt.respell import is_quantised, respell

        encoder, decoder = (
            respell(graph, quantised=is_quantised(graph)) for graph in (made.encoder, made.decoder)
        )
        stated = msgspec.structs.replace(made.quantisation, notes="spelled for TensorRT")
        return replace(made, encoder=encoder, decoder=decoder, quantisation=stated)

    def _convert(self, budget: float | None) -> Converted:
        match self.options.precision:
            case "fp16":
                return self._fp16()
            case "int8":
                return self._int8(self.options.budget if budget is None else budget)
            case "int8-dynamic":
                return self._both(dynamic_int8, DYNAMIC)
            case "int8-weights":
                text = "weights stored as int8 with a scale a channel, computed in float32"
                return self._both(lambda graph: graph, text)
            case "int4-weights":
                text = "linear layers with 4-bit weights in blocks of 32"
                return self._both(lambda graph: block_weights(graph, 4), text)
        return Converted(self.encoder, self.decoder, Quantisation())

    def _both(self, change: Callable[[onnx.ModelProto], onnx.ModelProto], text: str) -> Converted:
        encoder, decoder = (store_weights_int8(change(g)) for g in (self.encoder, self.decoder))
        return Converted(encoder, decoder, Quantisation(text, text))

    def _fp16(self) -> Converted:
        from edgecap.export.tensorrt.half import to_half

        graphs = (to_half(self.encoder), to_half(self.decoder))
        return Converted(*graphs, Quantisation("float16", "float16"))

    def _int8(self, budget: float) -> Converted:
        if self._fixed is not None:
            encoder = quantize_as_tuned(self.encoder, self._pictures, self._fixed)
            decoder, text = quantize_decoder(self.decoder)
            return Converted(encoder, decoder, quantisation_of(self._fixed, text))
        assert self._static is not None
        chosen = choose_layers(self._layers, budget)
        encoder = store_weights_int8(self._static.quantize(chosen))
        decoder, text = quantize_decoder(self.decoder)
        left = tuple(one.name for one in self._layers if one.name not in set(chosen))
        count = f"{len(chosen)} of {len(self._layers)} layers"
        return Converted(
            encoder,
            decoder,
            Quantisation(
                f"int8 static QDQ, {count}, the others stored as int8 and run in float32",
                text,
            ),
            tuple(self._layers),
            left,
        )
