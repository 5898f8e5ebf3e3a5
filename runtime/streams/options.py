"""Options of sources and streams: frozen, validated once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgecap.runtime.errors import OptionsError

GATES = ("auto", "none", "thumbnail")
UNSURE = ("mark", "silent")
TRANSPORTS = ("auto", "tcp", "udp")
DECODERS = ("auto", "hardware", "software")


@dataclass(frozen=True)
class SourceOptions:
    """How a source is opened and kept open. Times are in seconds."""

    loop: bool = False  # start a file, picture or folder again at its end
    realtime: bool = True  # play a video file at its own speed; False: every frame, none dropped
    open_timeout: float = 10.0  # network sources: time to the first answer
    read_timeout: float = 5.0  # silence after which a camera counts as lost
    reconnects: int = 10  # attempts in a row to get a lost camera back; 0 gives up at once
    wait: bool = False  # a camera that is absent at the start is waited for, as a lost one is
    transport: str = "auto"  # RTSP over tcp or udp; auto: tcp first
    latency: float = 0.5  # frames of a network camera that are later than this are dropped
    decoder: str = "auto"  # hardware: a Jetson's own decoder where there is one; software
    width: int | None = None  # of a camera's picture, with height; None: its own
    height: int | None = None
    rate: float | None = None  # frames per second of a camera, video, folder or snapshot address
    frozen_after: float = 30.0  # the same picture or timestamp for so long means a frozen camera

    def __post_init__(self) -> None:
        _real("open_timeout", self.open_timeout, 0.1, 3600.0)
        _real("read_timeout", self.read_timeout, 0.1, 3600.0)
        _whole("reconnects", self.reconnects, 0, 1_000_000_000)
        _choice("transport", self.transport, TRANSPORTS)
        _real("latency", self.latency, 0.0, 60.0)
        _choice("decoder", self.decoder, DECODERS)
        if (self.width is None) != (self.height is None):
            raise OptionsError("give both width and height, or neither")
        if self.width is not None:
            _whole("width", self.width, 16, 16384)
            _whole("height", self.height, 16, 16384)
        if self.rate is not None:
            _real("rate", self.rate, 0.001, 1000.0)
        _real("frozen_after", self.frozen_after, 0.1, 1e9)


@dataclass(frozen=True)
class StreamOptions:
    """What is captioned and when a stream ends. Times are in seconds."""

    gate: str = "auto"  # auto: two-stage for video and cameras, none for separate pictures
    threshold: float = 0.05  # share of the thumbnail's cells that must differ, 0 to 1
    same: float = 0.97  # cosine of the encoder's features from which a scene is the same
    changed: float = 0.95  # cosine below which a scene that was the same has changed
    near: float = 0.98  # cosine from which the last caption is verified first; above 1 never
    min_interval: float = 0.0  # least time between two captions
    max_age: float = 60.0  # an unchanged scene is captioned again after this long
    max_captions: int | None = None  # end after so many captions
    duration: float | None = None  # end after so long
    deadline: float | None = None  # from capture to caption, in seconds; decoding ends in time
    unsure: str = "mark"  # captions under the model's floor: mark (``sure`` is false) or silent
    slowest: float | None = None  # bound of the 99th percentile of capture to caption, in seconds
    hottest: float | None = None  # bound of the device's temperature in degrees Celsius
    stuck: float = 30.0  # silence of the camera or captioner that the watch-dog reports
    queue: int = 64  # events that wait for one slow sink before the oldest is given up
    flush_timeout: float = 5.0  # time that sinks get at the end to take what waits

    def __post_init__(self) -> None:
        _choice("gate", self.gate, GATES)
        _real("threshold", self.threshold, 0.0, 1.0)
        _real("same", self.same, -1.0, 2.0)
        _real("changed", self.changed, -1.0, 2.0)
        _real("near", self.near, -1.0, 2.0)
        if self.changed > self.same:
            raise OptionsError(
                f"changed is {self.changed:g} and same {self.same:g}; give changed <= same"
            )
        _real("min_interval", self.min_interval, 0.0, math.inf)
        _real("max_age", self.max_age, 0.0, math.inf)
        if self.max_age < self.min_interval:
            raise OptionsError(
                f"max_age is {self.max_age:g} s and min_interval {self.min_interval:g} s; "
                "give a max_age of at least min_interval"
            )
        if self.max_captions is not None:
            _whole("max_captions", self.max_captions, 1, 2**63)
        if self.duration is not None:
            _real("duration", self.duration, 0.0, math.inf)
        if self.deadline is not None:
            _real("deadline", self.deadline, 0.001, 3600.0)
        _choice("unsure", self.unsure, UNSURE)
        if self.slowest is not None:
            _real("slowest", self.slowest, 0.001, 3600.0)
        if self.hottest is not None:
            _real("hottest", self.hottest, 0.0, 150.0)
        _real("stuck", self.stuck, 0.1, 1e9)
        _whole("queue", self.queue, 1, 1_000_000)
        _real("flush_timeout", self.flush_timeout, 0.0, 3600.0)


def stream_threads(threads: int | None = None) -> int:
    """CPU threads for a model that captions a stream: ``threads``, or one less than the cores.

    A step of the model waits for the slowest of its threads. With as many threads as cores, every
    decoded frame takes one of them away, and captions that meet it last several times as long.
    """
    from edgecap.runtime.engines.threads import physical_cores, thread_count

    return thread_count(min(4, max(1, physical_cores() - 1)) if threads is None else threads)


def _choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise OptionsError(f"{name} is {value!r}; give one of {', '.join(accepted)}")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionsError(f"{name} is {value!r}; give a whole number from {low} to {high}")


def _real(name: str, value: object, low: float, high: float) -> None:
    # A NaN fails both comparisons and is refused with the rest.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        accepted = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise OptionsError(f"{name} is {value!r}; give a number {accepted}")
