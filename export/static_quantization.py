"""Static quantisation of an encoder (QDQ, Jacob et al. 2018), calibrated once for any layers.

The spelling is what ONNX Runtime's CPU kernels fuse: uint8 activations, int8 weights per channel,
int32 bias. TensorRT's spelling of the same scales is made from it when an engine is built.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import OptionsError

if TYPE_CHECKING:
    import onnx

METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
# Their sums leave the integer kernel as floats, unrounded: with rounded outputs the encoder of
# ViT-B/16 took 131 ms instead of 87. Convolutions stay integer from layer to layer.
FLOAT_OUTPUTS = ("MatMul", "Gemm")


@dataclass(frozen=True)
class CalibrationOptions:
    """How the range of an activation is taken from what it was on real photographs.

    method : "minmax", "entropy" or "percentile"
    percentile : share of the values inside the range, in percent; of the last method
    """

    method: str = "percentile"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionsError(f"calibration {self.method!r}; give one of {', '.join(METHODS)}")
        if not 50 < self.percentile <= 100:
            raise OptionsError(f"percentile is {self.percentile}; give more than 50, at most 100")


class StaticQuantizer:
    """Ranges of every activation of ``proto`` and the layers that could compute in integers.

    proto : a float encoder whose one input is image, uint8 [B, S, S, 3]
    pictures : uint8 [S, S, 3] RGB, resized as the encoder takes them
    types : operators that may be quantised; products of two activations never are
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        pictures: Sequence[npt.NDArray[np.uint8]],
        options: CalibrationOptions,
        types: Sequence[str] = ("Conv", "MatMul", "Gemm"),
    ) -> None:
        import onnx
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator
        from onnxruntime.quantization.shape_inference import quant_pre_process

        method = METHODS[options.method]
        extra: dict[str, Any] = {}
        if method == "Percentile":
            extra["percentile"] = options.percentile
        with tempfile.TemporaryDirectory() as folder:
            raw, ready = Path(folder) / "raw.onnx", Path(folder) / "ready.onnx"
            onnx.save(proto, raw)
            quant_pre_process(str(raw), str(ready), skip_symbolic_shape=True)
            self.model = onnx.load(ready)
            calibrator = create_calibrator(
                ready,
                list(types),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=getattr(CalibrationMethod, method),
                extra_options=extra,
            )
            calibrator.collect_data(_Reader(pictures))
            self._ranges = calibrator.compute_data()
            del calibrator
        self._types = list(types)
        constant = {item.name for item in self.model.graph.initializer}
        self.layers: list[str] = [
            node.name
            for node in self.model.graph.node
            if node.op_type in types and node.input[1] in constant
        ]

    def quantize(self, layers: Collection[str]) -> onnx.ModelProto:
        """The graph with ``layers``, names of ``self.layers``, computing in integers."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        unknown = sorted(set(layers) - set(self.layers))
        if unknown:
            raise OptionsError(f"no layer {unknown[0]!r} to quantise; see StaticQuantizer.layers")
        if not layers:
            return copy.deepcopy(self.model)
        quantizer = QDQQuantizer(
            copy.deepcopy(self.model),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=list(layers),
            nodes_to_exclude=[],
            op_types_to_quantize=self._types,
            extra_options={"OpTypesToExcludeOutputQuantization": list(FLOAT_OUTPUTS)},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # it adds nodes at the end, which the checker refuses
        quantised: onnx.ModelProto = quantizer.model.model
        return quantised


class _Reader:
    """Feeds calibration pictures one by one."""

    def __init__(self, images: Sequence[npt.NDArray[np.uint8]]) -> None:
        self._images: Iterator[npt.NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image[None]}
