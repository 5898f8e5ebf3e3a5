"""Records that were never measured, for what is done with records."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec.structs import replace

from edgecap.bench.machine import State, this_machine
from edgecap.bench.record import (
    KIND,
    STAGES,
    TOTAL,
    VERSION,
    Cold,
    Energy,
    Equality,
    Model,
    Record,
    Run,
    Source,
)
from edgecap.bench.statistics import restless, summarize
from edgecap.bench.usage import Usage


def make_run(scale: float = 1.0, count: int = 300, seed: int = 0, **changes: Any) -> Run:
    """A run whose stages take 0.1, 1, 4, 8 and 0.1 ms times ``scale``, with 2 % of noise."""
    rng = np.random.default_rng(seed)
    means = np.array([0.1, 1.0, 4.0, 8.0, 0.1]) * scale
    rows = np.round(means * rng.normal(1, 0.02, (count, len(means))), 4)
    samples = {name: rows[:, i].tolist() for i, name in enumerate(STAGES)}
    samples[TOTAL] = np.round(rows.sum(1), 4).tolist()
    stages = {name: summarize(values) for name, values in samples.items() if values}
    usage = Usage(cpu_percent=180.0, others_percent=2.0, peak_rss_mb=200.0)
    state = State(temperature=45.0, clocks_mhz=[2000.0], governors=["performance"], load=1.0)
    run = Run(
        beams=4,
        threads=2,
        engine="onnxruntime",
        engine_summary="ONNX Runtime",
        equality=Equality(reference="the reference", pictures=10, same=10, needed=10),
        ended="duration",
        cold=Cold(load_ms=100.0, first_caption_ms=30.0),
        warm_up=10,
        seconds=count * 0.0132 * scale,
        captions=count,
        received=count + 10,
        captions_per_second=round(1e3 / 13.2 / scale, 3),
        stages=stages if count else {},
        samples=samples if count else {},
        usage=usage,
        energy=Energy(joules_per_caption={}, watts={}),
        before=state,
        after=state,
        noise=restless(stages, usage),
    )
    return replace(run, **changes)


def make_record(*runs: Run, **changes: Any) -> Record:
    """A record of these runs on this machine."""
    record = Record(
        kind=KIND,
        version=VERSION,
        command="edgecap bench",
        date="2026-01-01T00:00:00+00:00",
        commit="0123456789ab",
        machine=this_machine(),
        model=Model(name="tiny", family="attention", bytes=1000, sha256="0" * 64),
        source=Source("test://moving", generated=True, live=False, loop=False, width=64, height=48),
        runs=list(runs),
    )
    return replace(record, **changes)
