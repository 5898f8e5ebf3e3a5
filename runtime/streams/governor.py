"""The governor: lowers quality in steps when a stream is too slow or too hot, and raises it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WINDOW = 100  # captions of which the 99th percentile is taken
ENOUGH = 20  # captions that have to be seen after a change before the next
SPARE = 0.7  # share of the bound under which there is room to raise
COOLER = 5.0  # degrees under the bound before raising
HOLD = 10.0  # seconds that must go well before raising; doubles when raising proves wrong
LONGEST_HOLD = 640.0
HEAT_PAUSE = 10.0  # seconds between two steps down for heat: metal is slow
ZONES = Path("/sys/class/thermal")


@dataclass(frozen=True)
class Level:
    """One step of quality.

    beams : most beams; None for as many as were asked for
    scale : of the sides of a camera's picture, where the camera can
    interval : least seconds between two captions of one camera
    """

    beams: int | None = None
    scale: float = 1.0
    interval: float = 0.0

    def __str__(self) -> str:
        beams = "all beams" if self.beams is None else f"beams {self.beams}"
        parts = [beams]
        if self.scale != 1.0:
            parts.append(f"pictures x {self.scale:g}")
        if self.interval:
            parts.append(f"{1.0 / self.interval:g} captions a second at most")
        return ", ".join(parts)


@dataclass(frozen=True)
class Change:
    """The governor went from one level to another."""

    level: Level
    step: int  # 0 is full quality
    lowered: bool
    why: str


def make_levels(beams: int) -> tuple[Level, ...]:
    """Full quality, then fewer beams, smaller pictures, lower rates."""
    levels = [Level()]
    while beams > 1:
        beams = (beams + 1) // 2
        levels.append(Level(beams))
    levels.append(Level(1, 0.5))
    levels += [Level(1, 0.5, 1.0 / rate) for rate in (10.0, 5.0, 2.0, 1.0)]
    return tuple(levels)


class Governor:
    """Watches latencies and temperature; one step at a time.

    slowest : bound of the 99th percentile of capture to caption, in seconds; None: any
    hottest : bound in degrees Celsius; None: any
    temperature : gives degrees Celsius or None where nobody knows
    """

    def __init__(
        self,
        levels: tuple[Level, ...],
        slowest: float | None,
        hottest: float | None,
        temperature: Callable[[], float | None] | None = None,
    ) -> None:
        self._levels = levels
        self._slowest, self._hottest = slowest, hottest
        self._temperature = temperature if temperature is not None else device_temperature
        self._step = 0
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._since: float | None = None  # when things began to go well
        self._changed: float | None = None
        self._raised: float | None = None
        self._hold = HOLD

    @property
    def level(self) -> Level:
        """The present level."""
        return self._levels[self._step]

    def observe(self, latency: float, now: float) -> Change | None:
        """Take the seconds from capture to caption of one event; ``now`` on any clock."""
        self._latencies.append(latency)
        return self.look(now)

    def look(self, now: float) -> Change | None:
        """Change the level if there is reason to."""
        if self._slowest is None and self._hottest is None:
            return None
        p99 = self._p99()
        heat = self._temperature() if self._hottest is not None else None
        hot = heat is not None and self._hottest is not None and heat > self._hottest
        slow = p99 is not None and self._slowest is not None and p99 > self._slowest
        if hot and self._changed is not None and now - self._changed < HEAT_PAUSE:
            hot = False
        if slow or hot:
            self._since = None
            if self._step + 1 == len(self._levels):
                return None
            why = f"{heat:.0f} degrees" if hot else f"99th percentile {p99 or 0.0:.3f} s"
            if self._raised is not None and now - self._raised < self._hold:
                self._hold = min(LONGEST_HOLD, 2.0 * self._hold)
            return self._go(self._step + 1, why, now)
        fast = self._slowest is None or (p99 is not None and p99 < SPARE * self._slowest)
        cool = self._hottest is None or heat is None or heat < self._hottest - COOLER
        if self._step == 0 or not (fast and cool):
            self._since = None
            return None
        if self._since is None:
            self._since = now
        if now - self._since < self._hold:
            return None
        self._raised = now
        return self._go(self._step - 1, "there is room again", now)

    def _p99(self) -> float | None:
        if len(self._latencies) < ENOUGH:
            return None
        return float(np.percentile(np.array(self._latencies), 99))

    def _go(self, step: int, why: str, now: float) -> Change:
        lowered = step > self._step
        self._step, self._changed, self._since = step, now, None
        self._latencies.clear()  # they belong to the old level
        return Change(self.level, step, lowered, why)


def device_temperature(zones: Path = ZONES) -> float | None:
    """The hottest thermal zone of the kernel in degrees Celsius; None where there is none."""
    found = []
    for path in zones.glob("thermal_zone*/temp"):
        try:
            degrees = int(path.read_text()) / 1000.0
        except (OSError, ValueError):
            continue
        if -40.0 < degrees < 200.0:
            found.append(degrees)
    return max(found, default=None)
