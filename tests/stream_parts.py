"""What the tests of whole streams share."""

from __future__ import annotations

from edgecap.runtime.streams import Event, StreamReport


class Collect:
    """A sink that keeps what it gets."""

    name = "collect"

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = 0

    def write(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1


def accounted(report: StreamReport) -> int:
    dropped = report.dropped
    return report.captions + sum(report.skipped.values()) + dropped["stale"] + dropped["stopped"]
