"""Decoder steps by this project's own C++ kernels on the CPU, behind ONNX Runtime's encoder.

Weights come from the bundle's decoder graph and are packed once. Beam search and steps run in one
call without the GIL; see docs/cpu_engine.md and runtime/native/step_decoder.h.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.engines.base import Encoded, RunnerCache
from edgecap.runtime.engines.contract import check_contract, check_tables
from edgecap.runtime.engines.cuda_onnx import Graph, Unlike
from edgecap.runtime.engines.cuda_spec import Linear, Norm, TransformerSpec
from edgecap.runtime.engines.cuda_transformer import read_transformer
from edgecap.runtime.engines.onnx import describe_graph, open_session
from edgecap.runtime.engines.onnx_weights import describe_model, load_model, stores_whole_numbers
from edgecap.runtime.engines.threads import thread_count
from edgecap.runtime.errors import EngineError, OptionsError

if TYPE_CHECKING:
    from edgecap.runtime.decoding.search import BeamSearch

PRECISIONS = ("int8", "int8-weights", "bf16", "fp32")
VARIABLE = "EDGECAP_NATIVE_PRECISION"
FAMILIES = (
    "Transformer decoders: image-transformer, GPT-2 and BERT with cross-attention or a prefix"
)


def read_spec(bundle: Bundle, model: Any) -> TransformerSpec:
    """The decoder of a bundle. model : its graph, as ``load_model`` gives it

    Raises ``EngineError`` for one that the kernels do not compute.
    """
    manifest = bundle.manifest
    try:
        graph = Graph(model)
        if not any(name.startswith("cache.") for name in graph.inputs):
            raise Unlike("it has a recurrent state and no caches")
        return read_transformer(graph)
    except Unlike as error:
        raise EngineError(
            f"the CPU kernels do not decode {manifest.name} ({manifest.family}): {error}. They "
            f"take {FAMILIES}, with weights in fp32, fp16 or int8 that is widened"
        ) from None


class NativeStepEngine:
    """ONNX Runtime's encoder and own decoder steps on the CPU; an ``Engine``.

    bundle : a checked bundle
    threads : of the encoder and of the steps; by default the physical cores at hand, at most 4
    precision : one of ``PRECISIONS``; by default what EDGECAP_NATIVE_PRECISION names, else "int8"
        for a bundle whose decoder stores its weights in int8, "fp32" for others. "int8" multiplies
        weights with a scale an output by inputs with a scale a row, in whole numbers;
        "int8-weights" keeps the inputs in float32; "bf16" and "fp32" are of the weights
    head_precision : of the last matrix, that reads words; by default as the others
    kernel : how whole numbers are multiplied, one of ``kernels()``; by default the fastest

    Keys, values, norms and sums besides those of whole numbers are float32. Runners are cached for
    each (B, K), so an engine serves one decode at a time, as ``OnnxEngine`` does.

    Raises ``EngineError`` for a decoder that the kernels do not compute or where the native module
    is missing, ``BundleError`` for graphs that do not load, ``OptionsError`` for bad options.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        precision: str | None = None,
        head_precision: str | None = None,
        kernel: str = "",
    ) -> None:
        manifest = bundle.manifest
        self.image_size = manifest.image.size
        self.vocab_size = manifest.tokenizer.vocab_size
        self.max_positions = manifest.max_positions
        self.threads = thread_count(threads)
        asked = precision if precision is not None else os.environ.get(VARIABLE) or None
        self.precision = _precision(asked or "fp32")
        native = _native()
        file, decoder_file = manifest.graphs.encoder.file, manifest.graphs.decoder.file
        model = load_model(bundle.files[decoder_file], decoder_file)
        spec = read_spec(bundle, model)
        if asked is None and stores_whole_numbers(model):
            self.precision = "int8"
        self._encoder = open_session(bundle.files[file], file, self.threads)
        real = describe_graph(self._encoder, file)
        check_tables(manifest, real, describe_model(model, decoder_file))
        check_contract(manifest)
        del model
        self._encoder_outputs = [spec.name for spec in manifest.graphs.encoder.outputs]
        try:
            self._decoder = native.StepDecoder(
                _packed(spec, self.max_positions),
                precision=self.precision,
                head_precision=_precision(head_precision or self.precision),
                threads=self.threads,
                kernel=kernel,
            )
        except ValueError as error:
            raise EngineError(
                f"the CPU kernels do not take {manifest.name}: {error}; engine='onnxruntime' does"
            ) from None
        self._spec, self._make = spec_shape(spec), native.StepRun
        self._runners: RunnerCache[NativeStepRunner] = RunnerCache()
        self._scorer: NativeStepRunner | None = None
        self._lock = threading.RLock()  # of the pool's threads: one decode at a time runs

    @property
    def kernel(self) -> str:
        """How whole numbers are multiplied."""
        return str(self._decoder.kernel)

    @property
    def weight_bytes(self) -> int:
        """Of the packed weights and tables."""
        return int(self._decoder.bytes)

    def encode(self, images: npt.NDArray[np.uint8]) -> Encoded:
        """Run the encoder on uint8 [B, S, S, 3] RGB pixels. Safe to call from several threads."""
        outputs = self._encoder.run(self._encoder_outputs, {"image": images})
        named = dict(zip(self._encoder_outputs, outputs, strict=True))
        return Encoded.of(len(images), named)

    def begin(self, encoded: Encoded, beams: int) -> NativeStepRunner:
        """Set up a decode of ``encoded`` with K = ``beams``; ends the last one of the same size."""
        size = (encoded.batch, beams)
        with self._lock:
            runner = self._runners.get(*size, lambda: self._runner(*size))
            runner.start(encoded)
        return runner

    def sentence_logits(self, encoded: Encoded, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """See ``ScoresSentences``; one step a token, with the very bits that decoding has."""
        logits = np.empty((len(tokens), self.vocab_size), np.float32)
        ancestry = np.zeros((1, self.max_positions), np.bool_)
        alone = np.zeros(1, np.int64)
        with self._lock:
            if self._scorer is None:
                self._scorer = self._runner(1, 1)
            self._scorer.start(encoded)
            for position, token in enumerate(tokens):
                given = np.array([token], np.int64)
                logits[position] = self._scorer.step(given, position, alone, ancestry)[0]
                ancestry[0, position] = True
        return logits

    def _runner(self, batch: int, beams: int) -> NativeStepRunner:
        run = self._make(self._decoder, batch, beams)
        return NativeStepRunner(run, self._spec, batch, beams, self.vocab_size, self._lock)


class NativeStepRunner:
    """Decoder steps, one by one or many in a call. Made by ``NativeStepEngine.begin``."""

    def __init__(
        self,
        run: Any,
        shape: tuple[int, bool, bool],
        batch: int,
        beams: int,
        vocab: int,
        lock: AbstractContextManager[Any],
    ) -> None:
        self._run, self._lock = run, lock
        self._layers, self._as_rows, self._first = shape
        self._logits = np.zeros((batch * beams, vocab), np.float32)

    def start(self, encoded: Encoded) -> None:
        """Copy the pictures' memory into the order that the kernels read."""
        memory = {
            name: np.ascontiguousarray(array, np.float32) for name, array in encoded.memory.items()
        }
        for layer in range(self._layers):
            keys = memory.get(f"memory.key.{layer}")
            if keys is not None:
                self._run.set_memory(layer, keys, memory[f"memory.value.{layer}"], self._as_rows)
        if self._first:
            self._run.set_first(memory["memory.first"])

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        """See ``StepRunner.step``."""
        del parents  # the ancestry says all
        with self._lock:
            self._run.step(tokens, int(position), ancestry, self._logits)
        return self._logits

    def run(self, search: BeamSearch, steps: int) -> tuple[bool, float] | None:
        """At most ``steps`` steps of model and search in one call: whether the search is done, and
        the seconds inside the model's steps. None for a search that is not in C++."""
        from edgecap.runtime.decoding.native import NativeSearch

        if not isinstance(search, NativeSearch):
            return None
        with self._lock:
            done, seconds = self._run.advance(search.core, search.tokens, search.ancestry, steps)
        return bool(done), float(seconds)


def kernels() -> list[str]:
    """The ways to multiply whole numbers that this processor can run, best first."""
    return list(_native().step_kernels())


def spec_shape(spec: TransformerSpec) -> tuple[int, bool, bool]:
    """What a runner needs of a spec: layers, whether memory lies as rows, whether there is a
    first word of the picture."""
    return len(spec.layers), spec.memory_rows, spec.first


def _precision(name: str) -> str:
    if name not in PRECISIONS:
        raise OptionsError(f"precision is {name!r}; give one of {', '.join(PRECISIONS)}")
    return name


def _native() -> Any:
    try:
        return importlib.import_module("edgecap._native")
    except ImportError as error:
        raise EngineError(f"the native module does not load ({error}); reinstall edgecap") from None


def _linear(linear: Linear | None) -> tuple[Any, Any] | None:
    return None if linear is None else (linear.weight, linear.bias)


def _norm(norm: Norm | None) -> tuple[Any, Any, float] | None:
    return None if norm is None else (norm.weight, norm.bias, norm.eps)


def _packed(spec: TransformerSpec, positions: int) -> dict[str, Any]:
    """The spec as ``_native.StepDecoder`` takes it."""
    transform = spec.transform
    layers = []
    for layer in spec.layers:
        cross = layer.cross
        layers.append(
            {
                "qkv": _linear(layer.qkv),
                "out": _linear(layer.out),
                "up": _linear(layer.up),
                "down": _linear(layer.down),
                "norm": _norm(layer.norm),
                "feed_norm": _norm(layer.feed_norm),
                "activation": layer.activation,
                "scale": layer.scale,
                "cross_query": _linear(cross.query) if cross else None,
                "cross_out": _linear(cross.out) if cross else None,
                "cross_norm": _norm(cross.norm) if cross else None,
                "cross_scale": cross.scale if cross else 1.0,
            }
        )
    return {
        "width": spec.width,
        "heads": spec.heads,
        "vocab": spec.vocab,
        "positions": positions,
        "offset": spec.offset,
        "memory": spec.memory,
        "before": spec.before,
        "words": spec.words,
        "places": spec.places,
        "norm_words": _norm(spec.norm_words),
        "norm": _norm(spec.norm),
        "transform": _linear(transform.layer) if transform else None,
        "transform_activation": transform.activation if transform else "tanh",
        "transform_norm": _norm(transform.norm) if transform else None,
        "head": _linear(spec.head),
        "layers": layers,
    }
