"""Photo libraries: alt text for folders of photographs, and an index to search them by.

>>> from edgecap.photos import Index, search
>>> Index().update("holiday").captioned
412
>>> [hit.path for hit in search("dog on the beach").hits]
['/home/ada/holiday/day3/img_0412.jpg']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecap.photos.batch import Report
    from edgecap.photos.errors import LibraryError
    from edgecap.photos.index import Index, IndexOptions
    from edgecap.photos.query import Answer, Hit, search

__all__ = ["Answer", "Hit", "Index", "IndexOptions", "LibraryError", "Report", "search"]

# Imported when first asked for.
_HOMES = {
    "Answer": "edgecap.photos.query",
    "Hit": "edgecap.photos.query",
    "Index": "edgecap.photos.index",
    "IndexOptions": "edgecap.photos.index",
    "LibraryError": "edgecap.photos.errors",
    "Report": "edgecap.photos.batch",
    "search": "edgecap.photos.query",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgecap.photos' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
