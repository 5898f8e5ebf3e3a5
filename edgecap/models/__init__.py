"""Models that come with EdgeCap: each ``NAME.edgecap`` in this folder can be loaded by its name."""

from __future__ import annotations

import os
from pathlib import Path

from edgecap.runtime.errors import BundleError

FOLDER = Path(__file__).parent
SUFFIX = ".edgecap"


def bundled() -> dict[str, Path]:
    """Name -> path of the models that come with EdgeCap."""
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def resolve(model: str | os.PathLike[str]) -> Path:
    """The bundle's path for a name or a path. A bundled name wins over a file of that name.

    Raises ``BundleError`` for an unknown name; whether a path exists is left to the reader.
    """
    text = os.fspath(model)
    known = bundled()
    if isinstance(model, str) and model in known:
        return known[model]
    path = Path(text)
    looks_like_path = path.suffix == SUFFIX or os.sep in text or not isinstance(model, str)
    if looks_like_path or path.exists():
        return path
    names = ", ".join(known) or "none in this installation"
    raise BundleError(
        f"no model is named {text!r}; bundled models: {names}; the path of a {SUFFIX} file works"
    )
