"""The CUDA kernels' C library (runtime/native/edgecap_cuda.h) and beam search through it."""

from __future__ import annotations

import ctypes
import functools
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
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}

_INT, _SIZE, _POINTER = ctypes.c_int32, ctypes.c_size_t, ctypes.c_void_p


class BeamConfig(ctypes.Structure):
    """``edgecap_beam_config`` of edgecap_cuda.h."""

    _fields_ = (
        *((name, _INT) for name in ("batch", "beams", "vocab", "positions", "max_new_tokens")),
        *((name, _INT) for name in ("min_new_tokens", "no_repeat_ngram_size", "early_stopping")),
        *((name, _INT) for name in ("bos", "eos", "pad", "ancestry", "multiprocessors", "parts")),
        ("repetition_penalty", ctypes.c_float),
        ("reserved", ctypes.c_float),
        ("length_penalty", ctypes.c_double),
        ("suppress_tokens", ctypes.POINTER(_INT)),
        ("suppress_count", _INT),
    )


class BeamPlaces(ctypes.Structure):
    """``edgecap_beam_places``: offsets in bytes from the start of the state."""

    _fields_ = (
        *((name, _SIZE) for name in ("state_bytes", "result_bytes", "control", "tokens")),
        *((name, _SIZE) for name in ("parents", "tokens64", "parents64", "position64", "origin")),
        ("ancestry", _SIZE),
        ("parts", _INT),
    )


_CONFIG, _PLACES = ctypes.POINTER(BeamConfig), ctypes.POINTER(BeamPlaces)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "edgecap_beam_layout": (_CONFIG, _PLACES),
    "edgecap_beam_init": (_CONFIG, _POINTER, _SIZE, _POINTER),
    "edgecap_beam_reset": (_CONFIG, _POINTER, _POINTER),
    "edgecap_beam_step": (_CONFIG, _POINTER, _POINTER, _INT, ctypes.c_int64, _POINTER),
    "edgecap_beam_poll": (_CONFIG, _POINTER, _POINTER, _POINTER),
    "edgecap_beam_results": (_CONFIG, _POINTER, _INT, _POINTER, _POINTER),
    "edgecap_beam_append": (_CONFIG, _POINTER, _POINTER, _POINTER, ctypes.c_int64, _POINTER),
    "edgecap_capture_begin": (_POINTER,),
    "edgecap_capture_end": (_POINTER, _POINTER),
    "edgecap_capture_launch": (_POINTER, _POINTER),
    "edgecap_capture_free": (_POINTER,),
    "edgecap_cuda_check_device": (ctypes.c_char_p, _SIZE),
}


class CudaLibrary:
    """The loaded library; ``call`` runs a function of it and raises ``EngineError`` on its code."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.functions = ctypes.CDLL(str(self.path.resolve()))
            self.functions.edgecap_cuda_message.restype = ctypes.c_char_p
            self.functions.edgecap_cuda_message.argtypes = (_INT,)
            self.functions.edgecap_cuda_architectures.restype = ctypes.c_char_p
            for name, arguments in _SIGNATURES.items():
                getattr(self.functions, name).argtypes = arguments
        except (OSError, AttributeError) as error:
            raise EngineError(
                f"{self.path} does not load as the library of CUDA kernels ({error}); build it "
                "with: pip install --no-binary edgecap edgecap, where nvcc is on the PATH"
            ) from None

    @property
    def architectures(self) -> tuple[str, ...]:
        """Compute capabilities it has code for, as ``("75", "87")``; ``("emulated",)`` on a CPU."""
        return tuple(self.functions.edgecap_cuda_architectures().decode().split(","))

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.functions, name)(*arguments)
        if code != 0:
            raise EngineError(f"{name}: {self.functions.edgecap_cuda_message(code).decode()}")

    def check_device(self) -> None:
        """Raises ``EngineError`` where the current device cannot run the kernels, and says why."""
        text = ctypes.create_string_buffer(256)
        if self.functions.edgecap_cuda_check_device(text, len(text)) != 0:
            raise EngineError(text.value.decode(errors="replace"))


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
) -> BeamConfig:
    """The configuration of a search. ``parts`` splits a row of logits, 0 derives it from
    ``multiprocessors``, which 0 takes from the device."""
    suppress = [token for token in options.suppress_tokens if token < vocab_size]
    stopping = options.early_stopping
    return BeamConfig(
        batch=batch,
        beams=options.beams,
        vocab=vocab_size,
        positions=max_positions,
        max_new_tokens=min(options.max_new_tokens, max_positions),
        min_new_tokens=min(options.min_new_tokens, max_positions),
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        early_stopping=2 if stopping == "never" else int(stopping),
        bos=special.bos,
        eos=special.eos,
        pad=special.pad,
        ancestry=int(ancestry),
        multiprocessors=multiprocessors,
        parts=parts,
        repetition_penalty=options.repetition_penalty,
        length_penalty=options.length_penalty,
        suppress_tokens=(_INT * max(len(suppress), 1))(*suppress),
        suppress_count=len(suppress),
    )


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
        self.places = BeamPlaces()
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
