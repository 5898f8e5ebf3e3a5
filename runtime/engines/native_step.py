"""Decoder steps by this project's own C++ kernels on the CPU, and encoders where they can.

Weights come from the bundle's graphs and are packed once. Beam search and steps run in one
call without the GIL; see docs/cpu_engine.md and runtime/native/step_decoder.h.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.engines.base import Encoded, RunnerCache
from edgecap.runtime.engines.contract import check_contract, check_tables
from edgecap.runtime.engines.cuda_spec import DecoderSpec, TransformerSpec
from edgecap.runtime.engines.native_encoder import Encoder, open_encoder
from edgecap.runtime.engines.native_spec import packed, read_spec
from edgecap.runtime.engines.onnx_weights import describe_model, load_model, stores_whole_numbers
from edgecap.runtime.engines.threads import thread_count
from edgecap.runtime.errors import EngineError, OptionsError

if TYPE_CHECKING:
    from edgecap.runtime.decoding.search import BeamSearch

PRECISIONS = ("int8", "bf16", "fp32")
VARIABLE = "EDGECAP_NATIVE_PRECISION"


class NativeStepEngine:
    """Own decoder steps on the CPU, and what ``open_encoder`` gives before them; an ``Engine``.

    bundle : a checked bundle
    threads : of the encoder and of the steps; by default the physical cores at hand, at most 4
    precision : one of ``PRECISIONS``; by default what EDGECAP_NATIVE_PRECISION names, else "int8"
        for a bundle whose decoder stores its weights in int8, "fp32" for others. "int8" multiplies
        weights with a scale an output by inputs with a scale a row, in whole numbers; "bf16" and
        "fp32" are of the weights, with inputs in float32
    head_precision : of the last matrix, that reads words; by default as the others
    kernel : how whole numbers are multiplied, one of ``kernels()``; by default the fastest
    own_encoder : False leaves every encoder to ONNX Runtime; else own kernels run those of int8
        bundles that they can, in "int8"

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
        own_encoder: bool = True,
    ) -> None:
        manifest = bundle.manifest
        self.image_size = manifest.image.size
        self.vocab_size = manifest.tokenizer.vocab_size
        self.max_positions = manifest.max_positions
        self.threads = thread_count(threads)
        asked = precision if precision is not None else os.environ.get(VARIABLE) or None
        self.precision = _precision(asked or "fp32")
        native = _native()
        decoder_file = manifest.graphs.decoder.file
        model = load_model(bundle.files[decoder_file], decoder_file)
        spec = read_spec(bundle, model)
        if asked is None and stores_whole_numbers(model):
            self.precision = "int8"
        self.encoder: Encoder = open_encoder(
            bundle,
            native,
            threads=self.threads,
            kernel=kernel,
            whole=own_encoder and self.precision == "int8",
        )
        check_tables(manifest, self.encoder.table, describe_model(model, decoder_file))
        check_contract(manifest)
        del model
        try:
            self._decoder = native.StepDecoder(
                packed(spec, self.max_positions),
                precision=self.precision,
                head_precision=_precision(head_precision or self.precision),
                threads=self.threads,
                kernel=kernel,
            )
        except ValueError as error:
            raise EngineError(
                f"the CPU kernels do not take {manifest.name}: {error}; engine='onnxruntime' does"
            ) from None
        self._fill, self._make = _filler(spec), native.StepRun
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
        return Encoded.of(len(images), self.encoder.run(images))

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
        rows = batch * beams
        return NativeStepRunner(run, self._fill, rows, self.vocab_size, self._lock)


class NativeStepRunner:
    """Decoder steps, one by one or many in a call. Made by ``NativeStepEngine.begin``."""

    def __init__(
        self,
        run: Any,
        fill: Callable[[Any, Encoded], None],
        rows: int,
        vocab: int,
        lock: AbstractContextManager[Any],
    ) -> None:
        self._run, self._fill, self._lock = run, fill, lock
        self._logits = np.zeros((rows, vocab), np.float32)

    def start(self, encoded: Encoded) -> None:
        """Copy what the encoder made of the pictures into the order that the kernels read."""
        self._fill(self._run, encoded)

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        """See ``StepRunner.step``."""
        with self._lock:
            self._run.step(tokens, parents, int(position), ancestry, self._logits)
        return self._logits

    def run(self, search: BeamSearch, steps: int) -> tuple[bool, float] | None:
        """At most ``steps`` steps of model and search in one call: whether the search is done, and
        the seconds inside the model's steps. None for a search that is not in C++."""
        from edgecap.runtime.decoding.native import NativeSearch

        if not isinstance(search, NativeSearch):
            return None
        with self._lock:
            buffers = search.tokens, search.parents, search.ancestry
            done, seconds = self._run.advance(search.core, *buffers, steps)
        return bool(done), float(seconds)


def kernels() -> list[str]:
    """The ways to multiply whole numbers that this processor can run, best first."""
    return list(_native().step_kernels())


def _filler(spec: DecoderSpec) -> Callable[[Any, Encoded], None]:
    """What hands an encoder's outputs to a run of the native module."""

    def floats(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(array, np.float32)

    def transformer(run: Any, encoded: Encoded) -> None:
        memory = encoded.memory
        for layer in range(layers):
            keys = memory.get(f"memory.key.{layer}")
            if keys is not None:
                values = memory[f"memory.value.{layer}"]
                run.set_memory(layer, floats(keys), floats(values), as_rows)
        if first:
            run.set_first(floats(memory["memory.first"]))

    def recurrent(run: Any, encoded: Encoded) -> None:
        cell = encoded.carry.get("carry.c")
        run.set_state(floats(encoded.carry["carry.h"]), None if cell is None else floats(cell))
        if looks:
            annotations, scores = (encoded.memory[f"memory.{n}"] for n in ("annotation", "score"))
            run.set_annotations(floats(annotations), floats(scores))

    if isinstance(spec, TransformerSpec):
        layers, as_rows, first = len(spec.layers), spec.memory_rows, spec.first
        return transformer
    looks = spec.look is not None
    return recurrent


def _precision(name: str) -> str:
    if name not in PRECISIONS:
        raise OptionsError(f"precision is {name!r}; give one of {', '.join(PRECISIONS)}")
    return name


def _native() -> Any:
    try:
        return importlib.import_module("edgecap._native")
    except ImportError as error:
        raise EngineError(f"the native module does not load ({error}); reinstall edgecap") from None
