"""Whole captions by this project's own CUDA kernels, behind whatever runs the encoder.

The decoder's weights come from a bundle's decoder graph. A caption is one launch where the driver
has conditional graph nodes (CUDA 12.4), and one copy of the hypotheses back; see decoder_api.h.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.decoding.loop import Decoded
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.search import NOTHING, Hypothesis
from edgecap.runtime.engines.base import Encoded
from edgecap.runtime.engines.cuda_abi import SIGNATURES, Packed, SearchStruct, SpecStruct
from edgecap.runtime.engines.cuda_library import CudaLibrary, load_library
from edgecap.runtime.engines.cuda_memory import Cuda
from edgecap.runtime.engines.cuda_program import write_program
from edgecap.runtime.engines.cuda_spec import DecoderSpec
from edgecap.runtime.errors import EngineError, MissingExtraError

FAMILIES = (
    "Transformer decoders (image-transformer, GPT-2 and BERT with cross-attention or a prefix, so "
    "imported ViT-GPT2, BLIP, GIT and ClipCap too) and LSTM or GRU decoders with or without "
    "attention (show-and-tell, show-attend-tell)"
)
STOP_EVERY = 1e-3  # seconds between two questions whether to stop
HOST = 0  # of decoder_api.h's places
ON_DEVICE = {"<f4": 1, "<f2": 2}
LOOPS = {-1: "none yet", 0: "plain", 1: "unrolled graph", 2: "graph with a WHILE node"}


@dataclass(frozen=True)
class Description:
    """loop : how the last kind of search runs; launches : of one step; bytes on the device"""

    loop: str
    launches: int
    weight_bytes: int
    state_bytes: int


def read_decoder(bundle: Bundle) -> DecoderSpec:
    """The decoder of a bundle: sizes, and weights in float32.

    Raises ``EngineError`` for a graph that the kernels do not compute, ``MissingExtraError``
    without the package onnx.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtraError(
            "decoding with the CUDA kernels needs onnx: pip install 'edgecap[gpu]'"
        ) from None
    from edgecap.runtime.engines.cuda_onnx import Graph, Unlike
    from edgecap.runtime.engines.cuda_recurrent import read_recurrent
    from edgecap.runtime.engines.cuda_transformer import read_transformer

    manifest = bundle.manifest
    try:
        graph = Graph(onnx.load_from_string(bundle.files[manifest.graphs.decoder.file]))
        cached = any(name.startswith("cache.") for name in graph.inputs)
        return read_transformer(graph) if cached else read_recurrent(graph)
    except Unlike as error:
        raise EngineError(
            f"the CUDA kernels do not decode {manifest.name} ({manifest.family}): {error}. They "
            f"take {FAMILIES}, with weights in fp32, fp16 or int8 that is widened"
        ) from None


class CudaDecoder:
    """Decodes whole captions on the GPU.

    bundle : its decoder graph gives the weights
    cuda : the device and stream; None where the library is the emulation on the CPU
    precision : of the weights: "fp16", "fp32", or "int8" with a scale a row. Sums are float32;
        keys, values and memory are kept in float32 with "fp32", in float16 otherwise
    library : found by itself where None

    B * K is at most 64, K at most 16. Calls from several threads take turns. Raises ``EngineError``
    for families the kernels do not have, a GPU they were not built for, or too little memory.
    """

    def __init__(
        self,
        bundle: Bundle,
        cuda: Cuda | None,
        precision: str = "fp16",
        library: CudaLibrary | None = None,
    ) -> None:
        manifest = bundle.manifest
        program = write_program(read_decoder(bundle))
        packed = Packed(program, manifest.max_positions, precision)
        self.precision, self.max_positions = precision, manifest.max_positions
        self._memories, self._carries = list(program.memories), list(program.states)
        self._shapes = {
            spec.name: tuple(int(side) for side in spec.shape[1:])
            for spec in manifest.graphs.decoder.inputs
            if spec.name.startswith(("memory.", "carry."))
        }
        self._cuda, self._lock = cuda, threading.Lock()
        library = library if library is not None else load_library()
        self._functions = _declare(library)
        self._handle = self._create(packed.spec)
        close = self._functions.edgecap_decoder_destroy
        self._close = weakref.finalize(self, _destroy, close, self._handle, cuda)

    def decode(
        self,
        encoded: Encoded,
        options: DecodingOptions,
        special: SpecialTokens,
        *,
        should_stop: Callable[[], bool] | None = None,
    ) -> Decoded:
        """The meaning of ``generate``; ``options.max_new_tokens`` is clipped to T. Memory may lie
        on the device, as arrays with ``__cuda_array_interface__`` of float32 or float16.

        should_stop : asked every millisecond by a thread of its own, while the GPU works; True ends
            the search after the step it is at
        """
        start = perf_counter()
        limit = min(options.max_new_tokens, self.max_positions)
        search = _search(encoded.batch, limit, options, special)
        search.stopped = int(should_stop is not None and should_stop())
        with self._lock, self._current(), self._watch(should_stop):
            arrays = [*map(encoded.memory.__getitem__, self._memories)]
            arrays += map(encoded.carry.__getitem__, self._carries)
            given = [
                self._input(name, array, encoded.batch)
                for name, array in zip([*self._memories, *self._carries], arrays, strict=True)
            ]
            count = len(self._memories)
            memory, carry = (_addresses(part) for part in (given[:count], given[count:]))
            places = np.array([one.place for one in given] or [HOST], np.uint8)
            stream = self._cuda.stream if self._cuda is not None else None
            call = self._functions.edgecap_decoder_decode
            self._check(
                call(self._handle, ctypes.byref(search), memory, carry, places.ctypes.data, stream)
            )
            return self._results(encoded.batch, limit, options, start)

    def describe(self) -> Description:
        """How captions are decoded, as far as it is settled: the loop is known after the first."""
        loop, launches = ctypes.c_int32(), ctypes.c_int32()
        weights, state = ctypes.c_size_t(), ctypes.c_size_t()
        out = [ctypes.byref(value) for value in (loop, launches, weights, state)]
        with self._lock:
            self._functions.edgecap_decoder_describe(self._handle, *out)
        return Description(LOOPS[loop.value], launches.value, weights.value, state.value)

    def close(self) -> None:
        """Free the GPU's memory; the decoder is of no use afterwards."""
        self._close()

    # ---- inside ------------------------------------------------------------------------------

    def _current(self) -> AbstractContextManager[None]:
        return self._cuda.current() if self._cuda is not None else nullcontext()

    def _create(self, spec: SpecStruct) -> int:
        handle, text = ctypes.c_void_p(), ctypes.create_string_buffer(512)
        with self._current():
            code = self._functions.edgecap_decoder_create(
                ctypes.byref(spec), ctypes.byref(handle), text, len(text)
            )
        if code != 0 or handle.value is None:
            raise EngineError(text.value.decode(errors="replace"))
        return handle.value

    @contextmanager
    def _watch(self, should_stop: Callable[[], bool] | None) -> Iterator[None]:
        """Stop the decode inside once ``should_stop`` says so."""
        if should_stop is None:
            yield
            return
        over = threading.Event()

        def watch() -> None:
            with self._current():
                while not over.wait(STOP_EVERY):
                    # Again and again: what comes before the launches stops nothing.
                    if should_stop():
                        self._functions.edgecap_decoder_stop(self._handle)

        watcher = threading.Thread(target=watch, name="edgecap deadline", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _check(self, code: int) -> None:
        if code != 0:
            text: bytes = self._functions.edgecap_decoder_message(self._handle)
            raise EngineError(text.decode(errors="replace"))

    def _input(self, name: str, array: Any, batch: int) -> _Input:
        shape = (batch, *self._shapes[name])
        if tuple(array.shape) != shape:
            raise EngineError(f"{name} is {list(array.shape)}; the decoder takes {list(shape)}")
        there = getattr(array, "__cuda_array_interface__", None)
        if there is not None:
            if there["typestr"] not in ON_DEVICE or there.get("strides") is not None:
                raise EngineError(
                    f"{name} on the device is {there['typestr']} with strides "
                    f"{there.get('strides')}; give float32 or float16, contiguous"
                )
            return _Input(int(there["data"][0]), ON_DEVICE[there["typestr"]], array)
        host = np.ascontiguousarray(array, np.float32)
        return _Input(int(host.ctypes.data), HOST, host)

    def _results(self, batch: int, limit: int, options: DecodingOptions, start: float) -> Decoded:
        side = (batch, options.beams)
        tokens, logprobs = np.empty((*side, limit), np.int32), np.empty((*side, limit), np.float32)
        lengths, scores = np.empty(side, np.int32), np.empty(side, np.float32)
        steps, truncated = ctypes.c_int32(), ctypes.c_int32()
        out = [array.ctypes.data for array in (tokens, logprobs, lengths, scores)]
        more = ctypes.byref(steps), ctypes.byref(truncated)
        self._check(self._functions.edgecap_decoder_results(self._handle, *out, *more))
        hypotheses = [
            [
                _hypothesis(tokens[b, k], logprobs[b, k], lengths[b, k], scores[b, k])
                for k in range(options.num_return_sequences)
            ]
            for b in range(batch)
        ]
        spent = (perf_counter() - start) * 1e3
        return Decoded(hypotheses, spent, spent, steps.value, truncated=bool(truncated.value))


@dataclass(frozen=True)
class _Input:
    address: int
    place: int
    array: Any  # alive while its address is used


def _addresses(inputs: list[_Input]) -> Any:
    return (ctypes.c_void_p * max(len(inputs), 1))(*(one.address for one in inputs))


def _declare(library: CudaLibrary) -> Any:
    try:
        for name, arguments in SIGNATURES.items():
            getattr(library.functions, name).argtypes = arguments
        library.functions.edgecap_decoder_message.restype = ctypes.c_char_p
    except AttributeError:
        raise EngineError(
            f"{library.path} has no decoder kernels; build it again from this version"
        ) from None
    return library.functions


def _destroy(close: Any, handle: int, cuda: Cuda | None) -> None:
    with cuda.current() if cuda is not None else nullcontext():
        close(handle)


def _search(
    batch: int, limit: int, options: DecodingOptions, special: SpecialTokens
) -> SearchStruct:
    suppressed = np.array(options.suppress_tokens or [0], np.int32)
    stopping = options.early_stopping
    search = SearchStruct(
        batch=batch,
        beams=options.beams,
        max_new_tokens=limit,
        min_new_tokens=min(options.min_new_tokens, limit),
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        early_stopping=2 if stopping == "never" else int(stopping),
        bos=special.bos,
        eos=special.eos,
        pad=special.pad,
        repetition_penalty=options.repetition_penalty,
        length_penalty=options.length_penalty,
        suppressed=len(options.suppress_tokens),
        suppress_tokens=suppressed.ctypes.data,
    )
    search.held = suppressed
    return search


def _hypothesis(tokens: Any, logprobs: Any, length: int, score: float) -> Hypothesis:
    if length == 0:
        return Hypothesis((), NOTHING, ())
    found = tuple(int(token) for token in tokens[:length])
    return Hypothesis(found, float(score), tuple(float(value) for value in logprobs[:length]))
