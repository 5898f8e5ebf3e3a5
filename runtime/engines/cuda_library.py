"""The CUDA kernels' C library (runtime/native/edgecap_cuda.h) and beam search through it.

Its functions are called through ``edgecap._native``, on raw addresses and stream handles.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.search import NOTHING, Hypothesis
from edgecap.runtime.engines.cuda_memory import Cuda
from edgecap.runtime.errors import EngineError

NAME = "libedgecap_cuda.so"
_native: Any = importlib.import_module("edgecap._native")
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}


class CudaLibrary:
    """The loaded library; ``call`` runs a function of it and raises ``EngineError`` on its code.

    ``kernels`` are the functions of edgecap_cuda.h, ``functions`` all of them for ctypes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.kernels = _native.CudaKernels(str(self.path.resolve()))
            self.functions = ctypes.CDLL(str(self.path.resolve()))
        except (OSError, RuntimeError) as error:
            raise EngineError(
                f"{self.path} does not load as the library of CUDA kernels ({error}); build it "
                "with: pip install --no-binary edgecap edgecap, where nvcc is on the PATH"
            ) from None

    @property
    def architectures(self) -> tuple[str, ...]:
        """Compute capabilities it has code for, as ``("75", "87")``; ``("emulated",)`` on a CPU."""
        return tuple(self.kernels.edgecap_cuda_architectures().split(","))

    def call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self.kernels, name)(*arguments)
        except RuntimeError as error:
            raise EngineError(str(error)) from None

    def check_device(self) -> None:
        """Raises ``EngineError`` where the current device cannot run the kernels, and says why."""
        self.call("edgecap_cuda_check_device")


def find_library() -> Path | None:
    """Where the library lies: EDGECAP_CUDA_LIBRARY, or beside the package; None where it was not
    built. Raises ``EngineError`` when the variable names no file."""
    named = os.environ.get("EDGECAP_CUDA_LIBRARY")
    if named:
        if not Path(named).is_file():
            raise EngineError(
                f"EDGECAP_CUDA_LIBRARY is {named!r}; name the file {NAME}, or unset it"
            )
        return Path(named)
    import edgecap

    for folder in edgecap.__path__:
        if (Path(folder) / NAME).is_file():
            return Path(folder) / NAME
    return None


@functools.cache
def _load(path: Path) -> CudaLibrary:
    return CudaLibrary(path)


def load_library() -> CudaLibrary:
    """The library of ``find_library``, loaded once. Raises ``EngineError`` where there is none."""
    path = find_library()
    if path is None:
        raise EngineError(
            f"{NAME} was not built: install edgecap from source on a machine with nvcc, or set "
            "EDGECAP_CUDA_LIBRARY to the file"
        )
    return _load(path)


def beam_config(
    batch: int,
    vocab_size: int,
    max_positions: int,
    options: DecodingOptions,
    special: SpecialTokens,
    *,
    ancestry: bool = False,
    multiprocessors: int = 0,
    parts: int = 0,
) -> Any:
    """The configuration of a search. ``parts`` splits a row of logits, 0 derives it from
    ``multiprocessors``, which 0 takes from the device."""
    stopping = options.early_stopping
    config = _native.BeamConfig()
    config.batch, config.beams, config.vocab = batch, options.beams, vocab_size
    config.positions = max_positions
    config.max_new_tokens = min(options.max_new_tokens, max_positions)
    config.min_new_tokens = min(options.min_new_tokens, max_positions)
    config.no_repeat_ngram_size = options.no_repeat_ngram_size
    config.early_stopping = 2 if stopping == "never" else int(stopping)
    config.bos, config.eos, config.pad = special.bos, special.eos, special.pad
    config.ancestry, config.multiprocessors, config.parts = int(ancestry), multiprocessors, parts
    config.repetition_penalty = options.repetition_penalty
    config.length_penalty = options.length_penalty
    config.suppress_tokens = [token for token in options.suppress_tokens if token < vocab_size]
    return config


class CudaBeamSearch:
    """One beam search on the device: its state, steps on logits in device memory, its results.

    batch, vocab_size, max_positions, options, special : as in ``make_search``; B up to 64, V up to
        262144, T up to 1024
    ancestry : also keep the mask bool [R, K * T] of the two-graph contract

    Nothing is allocated after construction, and only ``finish`` and ``going`` wait for the device.
    Calls stand inside ``cuda.current()``. Raises ``EngineError``.
    """

    def __init__(
        self,
        library: CudaLibrary,
        cuda: Cuda,
        batch: int,
        vocab_size: int,
        max_positions: int,
        options: DecodingOptions,
        special: SpecialTokens,
        *,
        ancestry: bool = False,
        multiprocessors: int = 0,
        parts: int = 0,
    ) -> None:
        self.library, self.cuda = library, cuda
        self.batch, self.count = batch, options.num_return_sequences
        self.config = beam_config(
            batch,
            vocab_size,
            max_positions,
            options,
            special,
            ancestry=ancestry,
            multiprocessors=multiprocessors,
            parts=parts,
        )
        self.places = _native.BeamPlaces()
        library.call("edgecap_beam_layout", self.config, self.places)
        self._poll = np.zeros(2, np.int32)
        self._host = np.zeros((batch * self.count, self.places.result_bytes), np.uint8)
        with ExitStack() as undo:
            self.state = cuda.allocate(self.places.state_bytes)
            undo.callback(cuda.free, self.state)
            size = self.places.state_bytes
            library.call("edgecap_beam_init", self.config, self.state, size, cuda.stream)
            undo.pop_all()

    def address(self, name: str) -> int:
        """Device address of ``tokens``, ``parents``, ``origin`` or another of ``BeamPlaces``."""
        return int(self.state + getattr(self.places, name))

    def step(self, logits: int, dtype: str = "float32", row_stride: int | None = None) -> None:
        """Queue one step on logits [R, V] at a device address, rows ``row_stride`` elements apart
        (V by default)."""
        if dtype not in DTYPES:
            raise EngineError(f"logits are {dtype}; give one of {', '.join(DTYPES)}")
        stride = self.config.vocab if row_stride is None else row_stride
        self.library.call(
            "edgecap_beam_step",
            self.config,
            self.state,
            logits,
            DTYPES[dtype],
            stride,
            self.cuda.stream,
        )

    def reset(self) -> None:
        """Queue a fresh search of the same configuration."""
        self.library.call("edgecap_beam_reset", self.config, self.state, self.cuda.stream)

    def going(self) -> bool:
        """Whether some image is not done; waits for the steps queued."""
        self.library.call(
            "edgecap_beam_poll", self.config, self.state, self._poll.ctypes.data, self.cuda.stream
        )
        self.cuda.synchronize()
        return bool(self._poll[1])

    @property
    def position(self) -> int:
        """Steps taken when ``going`` was last asked."""
        return int(self._poll[0])

    def finish(self) -> list[list[Hypothesis]]:
        """As ``BeamSearch.finish``; waits for the device, then one small copy."""
        host = self._host
        self.library.call(
            "edgecap_beam_results",
            self.config,
            self.state,
            self.count,
            host.ctypes.data,
            self.cuda.stream,
        )
        self.cuda.synchronize()
        return unpack_results(host, self.batch, self.count)

    def close(self) -> None:
        """Free the state. The search is of no use afterwards."""
        if self.state:
            self.cuda.free(self.state)
            self.state = 0


def unpack_results(
    results: npt.NDArray[np.uint8], batch: int, count: int
) -> list[list[Hypothesis]]:
    """Hypotheses from uint8 [B * count, result_bytes], as ``edgecap_beam_results`` copies them."""
    limit = (results.shape[1] - 8) // 8
    scores = results[:, :4].view(np.float32)[:, 0]
    lengths = results[:, 4:8].view(np.int32)[:, 0]
    tokens = results[:, 8 : 8 + 4 * limit].view(np.int32)
    logprobs = results[:, 8 + 4 * limit :].view(np.float32)
    found = [
        Hypothesis(
            tuple(tokens[i, :length].tolist()),
            float(scores[i]) if length else NOTHING,
            tuple(logprobs[i, :length].tolist()),
        )
        for i, length in enumerate(lengths.tolist())
    ]
    return [found[image * count : (image + 1) * count] for image in range(batch)]
