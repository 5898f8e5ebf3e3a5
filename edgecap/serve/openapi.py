"""``/openapi.json``: the server's addresses for people's tools."""

from __future__ import annotations

from typing import Any


def document() -> dict[str, Any]:
    """An OpenAPI 3.1 document."""
    import edgecap

    return {
        "openapi": "3.1.0",
        "info": {"title": "EdgeCap", "version": edgecap.__version__},
        "paths": {},
    }
