"""A server for the tests of this folder, and photographs for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import serving


@pytest.fixture(scope="session")
def photographs(shared: Path) -> list[Path]:
    """Real photographs, JPEG."""
    found = sorted((shared / "data" / "flickr8k" / "images").glob("*.jpg"))[:32]
    if not found:
        pytest.skip("no photographs of flickr8k in ../shared/data")
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server with short times, without cameras."""
    arguments = ["--max-bytes", "400000", "--max-pixels", "2000000", "--connections", "48"]
    arguments += [
        "--header-timeout",
        "1",
        "--body-timeout",
        "1.5",
        "--rate",
        "10000/second",
        "--batch",
        "8",
    ]
    with serving(*arguments) as address:
        yield address.rstrip("/")
