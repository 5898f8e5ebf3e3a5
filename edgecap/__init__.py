"""EdgeCap turns pictures and camera streams into sentences on a small computer.

>>> import edgecap
>>> captioner = edgecap.load()
>>> print(captioner("photo.jpg").text)
a dog runs through the grass
"""

from __future__ import annotations

import importlib
import os
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


def load(model: str | os.PathLike[str] = "default", *, threads: int | None = None) -> Captioner:
    """A captioner for a model.

    model : the name of a model that comes with EdgeCap, or the path of a ``.edgecap`` bundle
    threads : CPU threads for the model; by default the physical cores, at most 4

    Raises ``BundleError`` for a name or path that does not exist and for a bundle that cannot be
    used, ``OptionsError`` for bad ``threads``.
    """
    from edgecap.models import resolve
    from edgecap.runtime.captioner import Captioner

    return Captioner(resolve(model), threads=threads)


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
