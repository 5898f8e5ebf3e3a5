"""EdgeCap turns pictures and camera streams into sentences on a small computer.

>>> import edgecap
>>> captioner = edgecap.load()
>>> print(captioner("photo.jpg").text)
a dog runs through the grass
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecap.runtime.caption import Alternative, Caption, Timings
    from edgecap.runtime.captioner import Captioner
    from edgecap.runtime.errors import EdgeCapError
    from edgecap.runtime.streams import open_source

    __version__: str

__all__ = [
    "Alternative",
    "Caption",
    "Captioner",
    "EdgeCapError",
    "Timings",
    "__version__",
    "load",
    "open_source",
]

# Imported when first asked for, so that `import edgecap` is quick.
_HOMES = {
    "Alternative": "edgecap.runtime.caption",
    "Caption": "edgecap.runtime.caption",
    "Captioner": "edgecap.runtime.captioner",
    "EdgeCapError": "edgecap.runtime.errors",
    "Timings": "edgecap.runtime.caption",
    "open_source": "edgecap.runtime.streams",
}


def load(
    model: str | os.PathLike[str] = "default",
    *,
    threads: int | None = None,
    engine: str | None = None,
    require_signature: str | os.PathLike[str] | None = None,
) -> Captioner:
    """A captioner for a model.

    model : the name of a model that comes with EdgeCap, or the path of a ``.edgecap`` bundle
    threads : CPU threads for the model; by default the physical cores, at most 4
    engine : "auto", "native" or "onnxruntime" (the CPU), "cuda", "tensorrt", "onnxruntime-cuda" or
        "onnxruntime-tensorrt"; by default what the environment variable EDGECAP_ENGINE names, else
        "auto". The captioner's ``engine_choice`` says which runs, and why no better one does
    require_signature : PEM file of the public key that must have signed the bundle; by default
        what the environment variable EDGECAP_REQUIRE_SIGNATURE names, if it is set

    Raises ``BundleError`` for a name or path that does not exist and for a bundle that cannot be
    used, ``OptionsError`` for bad ``threads`` or ``engine``, ``EngineError`` for an engine that was
    asked for by name and does not run here. Where there is no CUDA driver at all the CPU stands in,
    and the logger ``edgecap.engines`` says so.
    """
    from edgecap.models import resolve
    from edgecap.runtime.bundle import read_bundle
    from edgecap.runtime.captioner import Captioner

    demanded = require_signature or os.environ.get("EDGECAP_REQUIRE_SIGNATURE")
    signer = Path(demanded) if demanded else None
    bundle = read_bundle(resolve(model), signer=signer)
    return Captioner(bundle, threads=threads, engine=engine)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("edgecap")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'edgecap' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
