"""OpenVINO: a bundle's two graphs compiled for the CPU, driven by this project's beam search.

The graphs are those of the bundle: stateless steps with their caches as inputs. Variants: ``f32``,
``bf16`` (OpenVINO's default on processors with bfloat16), ``int8`` (nncf: post-training, the
encoder from photographs and the decoder's weights; the rest as OpenVINO chooses).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bundle_search import BundleSearch, Graphs, StepBuffers
from protocol import serve

from edgecap.runtime.engines.base import Encoded

HINTS = {"f32": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """The contract of ``edgecap.runtime.engines.base.Engine`` over two compiled models."""

    def __init__(self, graphs: Graphs, threads: int, variant: str, kept: Sequence[Path] = ()):
        import openvino

        self.image_size, self.vocab_size = graphs.image_size, graphs.vocab_size
        self.max_positions, self._graphs = graphs.max_positions, graphs
        core = openvino.Core()
        models = [core.read_model(graph) for graph in kept or (graphs.encoder, graphs.decoder)]
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        if variant in HINTS:
            config["INFERENCE_PRECISION_HINT"] = HINTS[variant]
        compiled = [core.compile_model(model, "CPU", config) for model in models]
        self._encoder, self._decoder = (model.create_infer_request() for model in compiled)
        self._names = [port.get_any_name() for port in compiled[0].outputs]

    def encode(self, images: npt.NDArray[np.uint8]) -> Encoded:
        self._encoder.infer({"image": images}, share_inputs=True)
        found = {name: self._encoder.get_tensor(name).data.copy() for name in self._names}
        return Encoded.of(len(images), found)

    def begin(self, encoded: Encoded, beams: int) -> OpenVinoSteps:
        return OpenVinoSteps(self._decoder, StepBuffers(self._graphs, encoded, beams))


class OpenVinoSteps:
    """Steps over memory that is shared with the request once."""

    def __init__(self, request: Any, buffers: StepBuffers) -> None:
        import openvino

        self._request, self._buffers = request, buffers
        for name, array in buffers.inputs.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        self._buffers.feed(tokens, position, parents, ancestry)
        self._request.infer()
        found = {name: self._request.get_tensor(name).data for name in self._buffers.outputs}
        self._buffers.keep(found, position)
        return found["logits"]


def int8_files(bundle: Path, graphs: Graphs) -> list[Path]:
    """Both graphs in nncf's post-training int8, made on the first run: convolutions and products of
    the encoder, with ranges from photographs, and the decoder's weights."""
    import nncf
    import openvino

    name = bundle.name.removesuffix(".edgecap").rpartition("-")[0]
    files = [bundle.with_name(f"{name}-nncf-{role}.xml") for role in ("encoder", "decoder")]
    if all(file.is_file() for file in files):
        return files
    core = openvino.Core()
    pictures = sorted(bundle.with_name(f"{name}-calibration").glob("*.npy"))
    if not pictures:
        raise FileNotFoundError(f"no photographs in {name}-calibration; bundles.py writes them")
    attends = name != "default"  # whose encoder is made of convolutions
    made = nncf.quantize(
        core.read_model(graphs.encoder),
        nncf.Dataset([{"image": np.load(picture)[None]} for picture in pictures]),
        subset_size=len(pictures),
        model_type=nncf.ModelType.TRANSFORMER if attends else None,
    )
    openvino.save_model(made, files[0], compress_to_fp16=False)
    decoder = core.read_model(graphs.decoder)
    made = nncf.compress_weights(decoder, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(made, files[1], compress_to_fp16=False)
    return files


class OpenVino(BundleSearch):
    packages = ("openvino", "nncf", "edgecap")
    variant = "f32"

    def make(self, model: Path, threads: int) -> OpenVinoEngine:
        kept = int8_files(model, self.graphs) if self.variant == "int8" else []
        return OpenVinoEngine(self.graphs, threads, self.variant, kept)


if __name__ == "__main__":
    serve(OpenVino)
