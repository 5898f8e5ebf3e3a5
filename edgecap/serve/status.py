"""What the server knows of itself: the numbers of ``/v1/status``, and whether it is well."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

import edgecap
from edgecap.serve.hub import Hub
from edgecap.serve.live import Live, quiet_for
from edgecap.serve.options import ServeOptions
from edgecap.serve.posted import PostedPictures

WINDOW = 10.0  # seconds over which captions per second are counted


class Status:
    """Reads the other parts; changes nothing."""

    def __init__(
        self, options: ServeOptions, captioner: Any, live: Live, hub: Hub, posted: PostedPictures
    ) -> None:
        self._options, self._captioner = options, captioner
        self._live, self._hub, self._posted = live, hub, posted
        self._started = time.monotonic()

    def problem(self) -> str | None:
        """Why the server is not well, in one line; None while it is.

        With cameras: frames of each must be dealt with. Without: no batch of posted pictures may
        take longer than that.
        """
        limit = self._options.stuck
        busy = self._posted.busy_since
        if busy is not None and time.monotonic() - busy > limit:
            return f"the captioner does not end: {time.monotonic() - busy:.0f} s on one batch"
        if self._live.ended is not None:
            return f"the cameras run no more: {self._live.ended}"
        for name, viewer in self._live.viewers.items():
            quiet = quiet_for(viewer)
            quiet = time.monotonic() - self._started if quiet is None else quiet
            if quiet > limit:
                why = f" ({viewer.why})" if viewer.why else ""
                return f"no frame of {name} for {quiet:.0f} s{why}"
        return None

    def values(self) -> dict[str, Any]:
        """The JSON of ``/v1/status`` and of the event ``status``."""
        sources = self._sources()
        problem = self.problem()
        return {
            "time": datetime.now(timezone.utc)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "version": edgecap.__version__,
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "healthy": problem is None,
            "problem": problem,
            "model": self._captioner.name,
            "engine": self._captioner.engine_choice.engine,
            "profile": self._live.profile,
            "pictures": self._options.pictures,
            "frames": sum(source["frames"] for source in sources),
            "captions": sum(source["captions"] for source in sources),
            "skipped": _together(source["skipped"] for source in sources),
            "dropped": _together(source["dropped"] for source in sources),
            "captions_per_second": round(
                sum(source["captions_per_second"] for source in sources), 2
            ),
            "gate": sources[0]["gate"] if sources else None,
            "sources": sources,
            "requests": {
                "waiting": self._posted.waiting,
                "done": self._posted.done,
                "refused": self._posted.refused,
            },
            "viewers": self._hub.listeners,
        }

    def _sources(self) -> list[dict[str, Any]]:
        now = time.monotonic()
        numbers = self._live.numbers()
        sources = []
        for name, viewer in self._live.viewers.items():
            quiet = quiet_for(viewer)
            recent = sum(now - moment < WINDOW for moment in viewer.moments)
            sources.append(
                {
                    "name": name,
                    "state": viewer.state,
                    "why": viewer.why,
                    **numbers[name],
                    "last_frame_age_ms": None if quiet is None else round(quiet * 1e3, 1),
                    "captions_per_second": round(recent / WINDOW, 2),
                    "gate": viewer.gate(),
                }
            )
        return sources


def _together(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for reason, number in count.items():
            total[reason] = total.get(reason, 0) + number
    return total
