"""source -> newest-frame slot -> gate -> captioner -> sinks, for one camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgecap.runtime.streams.cameras import Cameras, Feed, Renewal
from edgecap.runtime.streams.controls import Controls
from edgecap.runtime.streams.event import Event, StreamReport
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.gate import Gate
from edgecap.runtime.streams.options import StreamOptions
from edgecap.runtime.streams.sinks.base import Sink
from edgecap.runtime.streams.sources.base import Source


class Pipeline:
    """Captions a source until it ends; runs once.

    >>> with open_source("clip.mp4") as source:
    ...     for event in Pipeline(source, edgecap.load()):
    ...         print(event.text)

    Parameters
    ----------
    source : an open source; it is cancelled at the end and closed by who opened it
    captioner : an ``edgecap.Captioner``, or any callable that is called with (image uint8
        [H, W, 3], channels="BGR", **decoding) and gives a ``Caption``
    gate : what decides which frames are captioned; None for the one that ``options`` name
    sinks : where events go beside the iterator
    decoding : keyword options for the captioner, such as ``beams``
    prepare, tell : as in ``Feed``: change frames before the gate, events before the sinks

    Errors of the source (SourceError) and of the captioner end the stream and are raised when
    everything has been freed. ``report`` then holds the numbers of the run. Several cameras on one
    model: ``Cameras``.
    """

    def __init__(
        self,
        source: Source,
        captioner: Any,
        *,
        gate: Gate | None = None,
        sinks: Sequence[Sink] = (),
        options: StreamOptions | None = None,
        decoding: Mapping[str, Any] | None = None,
        prepare: Callable[[Frame], Frame] | None = None,
        tell: Callable[[Event], Event | None] | None = None,
    ) -> None:
        feed = Feed(source, sinks, gate, prepare, tell)
        self._cameras = Cameras([feed], captioner, options=options, decoding=decoding)

    @property
    def report(self) -> StreamReport | None:
        """The numbers of the run, once it has ended."""
        reports = self._cameras.reports
        return reports[0] if reports else None

    @property
    def controls(self) -> Controls:
        """What may be changed while the stream runs."""
        return self._cameras.controls[0]

    def describe_now(self) -> None:
        """Have the next frame captioned whatever the gate says. Safe in any thread."""
        self._cameras.describe_now()

    def exchange(self, captioner: Any) -> None:
        """Caption with another model from the next frame on; the camera runs on meanwhile."""
        self._cameras.exchange(captioner)

    def renew(self, renewal: Renewal) -> None:
        """Go on with another model and other settings, see ``Cameras.renew``."""
        self._cameras.renew(renewal)

    def stop(self) -> None:
        """End the stream after the caption in the making. Safe in signal handlers and threads."""
        self._cameras.stop()

    def run(self) -> StreamReport:
        """Caption until the end and return the report."""
        return self._cameras.run()[0]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._cameras)
