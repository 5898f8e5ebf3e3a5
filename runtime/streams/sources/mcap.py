"""``bag.mcap``, ``mcap://BAG?topic=TOPIC``: the images of a ROS 2 bag."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from edgecap.runtime.errors import ImageError, SourceError
from edgecap.runtime.messages.bags import Bag, Recorded
from edgecap.runtime.messages.images import header_of, picture_of
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Picture, Source


class McapBag(Source):
    """A topic of ``sensor_msgs/Image`` or ``CompressedImage`` out of a bag.

    Frames come at the pace at which they were recorded (``options.realtime``) or as fast as they
    are asked for; ``options.rate`` takes the place of the recorded pace. ``pts`` counts from the
    first message by the recorder's clock, and each frame carries its message's header.

    A message that holds no picture that can be read is left out and counted as ``unreadable``; the
    first of each reason is told. A bag that breaks off is read up to there, and that is told.

    topic : the topic; None where only one carries images

    Raises SourceError and MissingExtraError as ``Bag`` does, and SourceError at the first read
    where not one picture can be read.
    """

    def __init__(self, path: Path, options: SourceOptions, topic: str | None = None) -> None:
        self._bag = Bag(path)
        self.topic = self._bag.choose(topic)
        super().__init__(f"{path}:{self.topic}", live=options.realtime)
        self._loop = options.loop
        self._period = None if options.rate is None else 1.0 / options.rate
        self._messages: Iterator[Recorded] = self._bag.messages(self.topic)
        self._reasons: dict[str, int] = {}
        self._round = 0  # frames given in this round
        self._pts = 0.0
        self._offset = 0.0  # where this round of the loop began
        self._zero: int | None = None  # the first message's time
        self._started: float | None = None  # monotonic moment of pts 0

    def _next(self) -> Picture | None:
        while not self._cancelled.is_set():
            recorded = next(self._messages, None)
            if recorded is None:
                if not self._at_end():
                    return None
                continue
            try:
                if recorded.message is None:
                    raise ImageError("the message's bytes are not those of its type")
                image = picture_of(recorded.message)
                header = header_of(recorded.message, recorded.logged)
            except ImageError as error:
                self._leave_out(str(error))
                continue
            self._pts = self._position(recorded.logged)
            self._round += 1
            if self.live:
                self._pace()
            return Picture(image, self._pts, header=header)
        return None

    def _at_end(self) -> bool:
        """Tell what was wrong; true where the bag begins again."""
        if self._bag.cut is not None:
            self.say("cut", f"{self._bag.cut}; they are used")
        if self._bag.damaged:
            self.say("damaged", f"{self.name}: {self._bag.damaged} damaged parts were left out")
        if self._round == 0:
            why = next(iter(self._reasons), "there is none")
            raise SourceError(f"{self.name} holds no picture that can be read: {why}")
        if not self._loop:
            return False
        self._bag.cut, self._bag.damaged = None, 0
        self._messages = self._bag.messages(self.topic)
        self._offset, self._zero, self._round = self._pts + (self._period or 0.04), None, 0
        return True

    def _leave_out(self, reason: str) -> None:
        self.lost["unreadable"] += 1
        self._reasons[reason] = self._reasons.get(reason, 0) + 1
        if self._reasons[reason] == 1:
            self.say("unreadable", f"{self.name}: a message is left out: {reason}")

    def _position(self, logged: int) -> float:
        """Seconds of a message on the bag's timeline; a clock that went back stands still."""
        if self._period is not None:
            return self._offset + self._round * self._period
        if self._zero is None:
            self._zero = logged
        return max(self._pts, self._offset + (logged - self._zero) / 1e9)

    def _pace(self) -> None:
        now = time.monotonic()
        if self._started is None:
            self._started = now - self._pts
        self._cancelled.wait(max(0.0, self._started + self._pts - now))

    def _release(self) -> None:
        self._messages = iter(())
