"""What the tests of sinks share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import stream_events

from edgecap.runtime.streams.event import Event


@pytest.fixture
def make_event() -> Callable[..., Event]:
    return stream_events.event
