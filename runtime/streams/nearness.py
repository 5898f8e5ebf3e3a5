"""What comes nearer: things whose picture grows as it does when they are about to be reached.

The time to contact of something that keeps its speed needs no distance: it is the size of its
picture over the rate at which that grows (Lee, A theory of visual control of braking based on
information about time-to-collision, Perception 5, 1976). One over the size falls in a straight
line then, and reaches zero at contact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.detector import COCO, Detections
from edgecap.runtime.streams.frames import Approach, Frame

WINDOW = 1.6  # seconds of a thing's past that count
SPAN = 1.2  # seconds that must be seen of it at least: a stride or a turn is shorter
FEWEST = 5  # sightings in the window
FORGET = 1.0  # seconds unseen after which a thing is another one
SAME = 0.3  # intersection over union from which two boxes are the same thing
STEADY = 0.8  # share of the pairs of sightings between which it must have grown
TOGETHER = 0.5  # of the faster side's growth that the slower side must have
ASIDE = 0.75  # own widths a second: what moves across so fast passes by, or turns
LATEST = 60.0  # seconds to contact that may be asked for
EDGE = 0.02  # share of the picture within which a side counts as cut off

Floats = npt.NDArray[np.float64]


@dataclass
class Track:
    """One thing over time. sightings : (seconds, box as in ``Detections``, score), oldest first."""

    what: str
    sightings: deque[tuple[float, npt.NDArray[np.float32], float]] = field(default_factory=deque)
    told: float = float("-inf")

    @property
    def box(self) -> npt.NDArray[np.float32]:
        """Where it was last."""
        return self.sightings[-1][1]


class Nearness:
    """Looks at the frames of one camera, and says what comes nearer.

    detector : finds things in an image and its ``channels``, as a ``Detector`` does
    approaches : follows them
    every : seconds between two looks; the frames between go by unseen
    """

    def __init__(
        self, detector: Callable[..., Detections], approaches: Approaches, *, every: float = 0.2
    ) -> None:
        if not 0.0 < every <= WINDOW / FEWEST:
            raise OptionsError(
                f"nearness.every is {every:g} s; give more than 0 s, to {WINDOW / FEWEST:g} s"
            )
        self._detector, self._approaches, self._every = detector, approaches, every
        self._last: float | None = None

    def look(self, frame: Frame) -> Frame:
        """The frame, with what comes nearer in ``nearer``; the same one where there is nothing."""
        now = frame.seconds
        # A clock that went back counts as a long time.
        if self._last is not None and 0.0 <= now - self._last < self._every * 0.99:
            return frame
        self._last = now
        found = self._detector(frame.image, channels=frame.channels)
        nearer = self._approaches.follow(found, now)
        return replace(frame, nearer=tuple(nearer)) if nearer else frame


class Approaches:
    """Follows the things that a detector finds, and tells which of them come nearer.

    things : what is said -> COCO's classes: someone -> person
    within : seconds to contact under which something is told
    sure : score that the detector must have in the middle of the window
    size : share of the picture's width or height that it must fill: what is small is far
    again : seconds after which the same thing may be told again

    Raises OptionsError for a class that COCO does not have, and for numbers out of range.
    """

    def __init__(
        self,
        things: Mapping[str, Sequence[str]],
        *,
        within: float = 3.0,
        sure: float = 0.6,
        size: float = 0.3,
        again: float = 10.0,
    ) -> None:
        if not 0.0 < within <= LATEST:
            raise OptionsError(
                f"nearness.within is {within:g} s; give more than 0 s, to {LATEST:g} s"
            )
        for name, value in (("sure", sure), ("size", size)):
            if not 0.0 <= value <= 1.0:
                raise OptionsError(f"nearness.{name} is {value:g}; give a number from 0 to 1")
        self._what = _numbers(things)
        self._within, self._again, self._sure, self._size = within, again, sure, size
        self._tracks: list[Track] = []

    def follow(self, found: Detections, now: float) -> list[Approach]:
        """What of the things seen at ``now`` (seconds) comes nearer and was not just told."""
        if any(track.sightings[-1][0] > now for track in self._tracks):
            self._tracks.clear()  # the clock went back
        nearer = []
        for track in self._match(found, now):
            left = self._judge(track)
            if left is not None and now - track.told >= self._again:
                track.told = now
                box = tuple(round(float(side), 3) for side in track.box)
                nearer.append(Approach(track.what, round(left, 2), box))
        return nearer

    def _judge(self, track: Track) -> float | None:
        """Seconds to contact, where they are few and the thing is big and sure enough."""
        times, boxes, scores = zip(*track.sightings, strict=True)
        left, top, right, bottom = track.box
        if max(right - left, bottom - top) < self._size or np.median(scores) < self._sure:
            return None
        seconds = time_to_contact(np.array(times), np.array(boxes, np.float64))
        return seconds if seconds is not None and seconds <= self._within else None

    def _match(self, found: Detections, now: float) -> list[Track]:
        """The tracks of the things that are seen now, each with its new sighting."""
        things = self._things(found)
        pairs = sorted(
            (
                (overlap(track.box, box), row, column)
                for row, track in enumerate(self._tracks)
                for column, (what, box, _) in enumerate(things)
                if what == track.what
            ),
            reverse=True,
        )
        rows: dict[int, int] = {}
        for share, row, column in pairs:
            if share >= SAME and row not in rows.values() and column not in rows:
                rows[column] = row
        seen = []
        for column, (what, box, score) in enumerate(things):
            track = self._tracks[rows[column]] if column in rows else Track(what)
            track.sightings.append((now, box, score))
            while now - track.sightings[0][0] > WINDOW + 1e-6:
                track.sightings.popleft()
            seen.append(track)
        known = {id(track) for track in seen}
        self._tracks = seen + [
            track
            for track in self._tracks
            if id(track) not in known and now - track.sightings[-1][0] < FORGET
        ]
        return seen

    def _things(self, found: Detections) -> list[tuple[str, npt.NDArray[np.float32], float]]:
        """What is watched for, best first; a truck that is a car, too, is one thing."""
        things: list[tuple[str, npt.NDArray[np.float32], float]] = []
        for row in np.argsort(-found.scores, kind="stable"):
            what = self._what.get(int(found.classes[row]))
            box = found.boxes[row]
            if what is None or any(
                what == other and overlap(box, seen) > 2 * SAME for other, seen, _ in things
            ):
                continue
            things.append((what, box, float(found.scores[row])))
        return things


def _numbers(things: Mapping[str, Sequence[str]]) -> dict[int, str]:
    """Class -> what is said of it."""
    known = {}
    for what, names in things.items():
        for name in names:
            if name not in COCO:
                raise OptionsError(
                    f"nearness.things.{what}: {name!r} is no class of COCO; give some of "
                    f"{', '.join(COCO)}"
                )
            known[COCO.index(name)] = what
    return known


def time_to_contact(times: Floats, boxes: Floats) -> float | None:
    """Seconds until something is reached whose pictures grow steadily; None where they do not.

    times : float64 [N], seconds, rising
    boxes : float64 [N, 4], as in ``Detections``

    The size is that of the sides which the picture's edge does not cut off. None, too, where one
    side grows and the other does not (something turns, or comes out from behind something), where
    it moves across, or where its free edge moves in.
    """
    if len(times) < FEWEST or times[-1] - times[0] < SPAN - 1e-6:
        return None
    left, top, right, bottom = boxes.T
    wide, high = right - left, bottom - top
    if wide.min() <= 0.0 or high.min() <= 0.0:
        return None
    if abs(_slope(times, (left + right) / 2)) > ASIDE * np.median(wide):
        return None
    over, under = bool((top < EDGE).any()), bool((bottom > 1.0 - EDGE).any())
    beside = bool((left < EDGE).any() or (right > 1.0 - EDGE).any())
    if (over or under) and beside:
        return None
    if over or under:
        # The free edge of what comes nearer moves out.
        if (not under and _slope(times, bottom) < 0.0) or (not over and _slope(times, top) > 0.0):
            return None
        size = wide
    elif beside:
        size = high
    else:
        growth = sorted(_slope(times, np.log(side)) for side in (wide, high))
        if growth[0] < TOGETHER * growth[1]:
            return None
        size = np.sqrt(wide * high)
    inverse = 1.0 / size
    pairs = _slopes(times, inverse)
    fall = -float(np.median(pairs))
    if fall <= 0.0 or float((pairs < 0.0).mean()) < STEADY:
        return None
    # The line through the middle of what its slope leaves over (Theil and Sen).
    now = float(np.median(inverse + fall * (times - times[-1])))
    return max(0.0, now / fall)


def overlap(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    if (sides <= 0.0).any():
        return 0.0
    both = float(sides.prod())
    areas = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod())
    return both / (areas - both)


def _slopes(times: Floats, values: Floats) -> Floats:
    """Of all pairs; their median bears three wrong sightings in ten."""
    early, late = np.triu_indices(len(times), 1)
    return np.asarray((values[late] - values[early]) / (times[late] - times[early]), np.float64)


def _slope(times: Floats, values: Floats) -> float:
    return float(np.median(_slopes(times, values)))
