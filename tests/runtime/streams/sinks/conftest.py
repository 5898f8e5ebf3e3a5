"""What the tests of sinks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stream_events
from small_disk import mounted

from edgecap.runtime.streams.event import Event


@pytest.fixture
def make_event() -> Callable[..., Event]:
    return stream_events.event


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with mounted(tmp_path / "small", "256k") as folder:
        yield folder
