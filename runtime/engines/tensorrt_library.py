"""Which TensorRT is here, its log as one sentence, and its dtypes.

``tensorrt`` 8.6 to 11 and ``tensorrt_rtx`` share the API that runs an engine (tensors by name,
``execute_async_v3``). What differs when an engine is built is in ``export/tensorrt/versions.py``.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

from edgecap.runtime.errors import EngineError, MissingExtraError

LIBRARIES = ("tensorrt", "tensorrt_rtx")
# Attribute of the library's DataType -> numpy's name; those a contract may hold, and INT8.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT8": "int8",
}
_OUT_OF_MEMORY = re.compile(
    r"out of memory|outofmemory|insufficient memory|requested amount of gpu memory"
    r"|cuda_error_out_of_memory|failed_allocation|could not allocate",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\s*\(?In [\w:~]+ at [^)]*\)?|\[[\w.]+::\w+::\d+\]\s*")


@dataclass(frozen=True)
class Library:
    """An imported TensorRT. ``name`` is its module's, ``version`` as it says it."""

    module: Any
    name: str
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT for RTX, which builds for GPUs that are not here."""
        return self.name == "tensorrt_rtx"

    def __str__(self) -> str:
        return f"{'TensorRT for RTX' if self.is_rtx else 'TensorRT'} {self.version}"


def find_library(name: str | None = None) -> Library | None:
    """The installed TensorRT, ``tensorrt`` before ``tensorrt_rtx``; None without one.

    name : only this one
    """
    for candidate in LIBRARIES if name is None else (name,):
        try:
            module = importlib.import_module(candidate)
        except (ImportError, OSError):  # OSError: its libraries do not load
            continue
        return Library(module, candidate, str(module.__version__))
    return None


def load_library(name: str | None = None) -> Library:
    """The same. Raises ``MissingExtraError`` without one."""
    library = find_library(name)
    if library is None:
        raise MissingExtraError(
            f"no {name or 'tensorrt'} is installed. On a Jetson it comes with JetPack: make the "
            "virtual environment with --system-site-packages. Elsewhere: pip install "
            "'edgecap[gpu]', or 'edgecap[tensorrt-rtx]' to build alone"
        )
    return library


class Log:
    """What TensorRT logs, as an ``ILogger`` to hand over and as text to read afterwards."""

    def __init__(self, library: Library) -> None:
        trt = library.module
        self.errors: list[str] = []
        self.warnings: list[str] = []
        log = self

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                    log.errors.append(message)
                elif severity == trt.ILogger.WARNING:
                    log.warnings.append(message)

        self.logger: Any = Logger()

    def clear(self) -> None:
        """Forget what was logged."""
        self.errors.clear()
        self.warnings.clear()

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether any message says that memory did not suffice."""
        return any(_OUT_OF_MEMORY.search(m) for m in (*self.errors, *self.warnings))

    def reason(self) -> str:
        """The first error in one line, without places in TensorRT's sources."""
        text = self.errors[0] if self.errors else "it gave no reason"
        return " ".join(_PLACE.sub("", text).split())[:300]


def dtype_name(library: Library, dtype: Any) -> str:
    """numpy's name of one of the library's data types."""
    known = library.module.DataType
    for name, text in _DTYPES.items():
        if getattr(known, name, None) == dtype:
            return text
    raise EngineError(f"{library} gave a tensor of type {dtype}, which no contract has")
