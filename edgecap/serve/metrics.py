"""``/metrics`` for Prometheus: base units, names as its manual asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

import edgecap
from edgecap.serve.guard import Guard
from edgecap.serve.hub import Hub
from edgecap.serve.live import Live
from edgecap.serve.posted import PostedPictures
from edgecap.serve.status import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
POSTED = "http"  # the source of captions of posted pictures


class Metrics:
    """A registry of this server's own; several servers in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            self.registry.register(collector)
        self.durations = Histogram(
            "edgecap_caption_duration_seconds",
            "From a frame's capture, or a picture's arrival, to its caption.",
            ["source"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "edgecap_stage_duration_seconds",
            "Time of one stage of a caption.",
            ["source", "stage"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.captions = Counter(
            "edgecap_captions", "Captions made.", ["source"], registry=self.registry
        )
        self.unsure = Counter(
            "edgecap_captions_unsure",
            "Captions under the model's confidence floor.",
            ["source"],
            registry=self.registry,
        )
        self.requests = Counter(
            "edgecap_http_requests",
            "Requests answered.",
            ["method", "route", "code"],
            registry=self.registry,
        )
        self.request_durations = Histogram(
            "edgecap_http_request_duration_seconds",
            "From a request's headers to the end of its answer; streams are left out.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def caption(self, source: str, sure: bool, seconds: float, stages: dict[str, float]) -> None:
        """Count a caption; ``stages`` in milliseconds."""
        self.captions.labels(source).inc()
        if not sure:
            self.unsure.labels(source).inc()
        self.durations.labels(source).observe(seconds)
        for stage, milliseconds in stages.items():
            self.stages.labels(source, stage).observe(milliseconds / 1e3)

    def watch(
        self, captioner: Any, status: Status, live: Live, hub: Hub, posted: PostedPictures,
        guard: Guard,
    ) -> None:  # fmt: skip
        """Read the other parts whenever somebody asks for the metrics."""
        self.registry.register(_Readings(captioner, status, live, hub, posted, guard))

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Readings:
    """Numbers that other parts keep anyway."""

    def __init__(
        self, captioner: Any, status: Status, live: Live, hub: Hub, posted: PostedPictures,
        guard: Guard,
    ) -> None:  # fmt: skip
        self._captioner, self._status = captioner, status
        self._live, self._hub, self._posted, self._guard = live, hub, posted, guard

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are known when numbers are."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The numbers of this moment."""
        info = GaugeMetricFamily(
            "edgecap_info", "What runs.", labels=["version", "model", "engine", "profile"]
        )
        engine = self._captioner.engine_choice.engine
        info.add_metric([edgecap.__version__, self._captioner.name, engine, self._live.profile], 1)
        yield info
        healthy = self._status.problem() is None
        yield GaugeMetricFamily("edgecap_healthy", "1 while captions come.", value=int(healthy))
        yield from self._frames()
        yield GaugeMetricFamily(
            "edgecap_http_connections", "Connections now.", value=self._guard.open
        )
        yield CounterMetricFamily(
            "edgecap_http_connections_refused",
            "Connections turned away because there were too many.",
            value=self._guard.refused,
        )
        cut = CounterMetricFamily(
            "edgecap_http_connections_timed_out",
            "Connections cut because the client was too slow.",
            labels=["while"],
        )
        for what, count in self._guard.timed_out.items():
            cut.add_metric([what], count)
        yield cut
        yield GaugeMetricFamily(
            "edgecap_pictures_waiting", "Posted pictures without caption.",
            value=self._posted.waiting,
        )  # fmt: skip
        yield CounterMetricFamily(
            "edgecap_pictures_refused",
            "Posted pictures refused because too many waited.",
            value=self._posted.refused,
        )
        yield GaugeMetricFamily(
            "edgecap_event_listeners", "Clients of the events.", value=self._hub.listeners
        )

    def _frames(self) -> Iterator[Metric]:
        frames = CounterMetricFamily(
            "edgecap_frames", "Frames that cameras gave.", labels=["source"]
        )
        skipped = CounterMetricFamily(
            "edgecap_frames_skipped", "Frames not captioned, by reason.",
            labels=["source", "reason"],
        )  # fmt: skip
        dropped = CounterMetricFamily(
            "edgecap_frames_dropped", "Frames never looked at, by reason.",
            labels=["source", "reason"],
        )  # fmt: skip
        for name, numbers in self._live.numbers().items():
            frames.add_metric([name], numbers["frames"])
            for reason, count in numbers["skipped"].items():
                skipped.add_metric([name, reason], count)
            for reason, count in numbers["dropped"].items():
                dropped.add_metric([name, reason], count)
        yield frames
        yield skipped
        yield dropped
