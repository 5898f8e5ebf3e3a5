"""All runs of one ``edgecap bench``: checked, warmed up, measured, put into a record."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from msgspec.structs import replace

from edgecap.bench.energy import Metering, find_meters
from edgecap.bench.equality import check_apart
from edgecap.bench.gpu import Gpu, find_gpu
from edgecap.bench.machine import State, source_commit, state_now, this_machine
from edgecap.bench.options import BenchOptions
from edgecap.bench.record import (
    KIND,
    VERSION,
    Cold,
    Energy,
    Model,
    Record,
    Run,
    Source,
)
from edgecap.bench.stages import Measured, Stages
from edgecap.bench.statistics import restless, summarize
from edgecap.bench.usage import Watch, reset_peak
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.choose import NATIVE, ON_CPU
from edgecap.runtime.engines.native_step import VARIABLE
from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams import open_source
from edgecap.runtime.streams.sources.base import mask_credentials

TELL_PERIOD = 0.5  # seconds between two looks at the progress: drawing it takes time, too


@dataclass(frozen=True)
class Step:
    """How far a measurement is: what is done, and the share of this run that is behind it."""

    what: str
    run: int  # from 1
    runs: int
    share: float


class Bench:
    """Measures a model as options say.

    model : path of a bundle
    command : how the record says that it was made
    tell : called now and then with how far it is
    """

    def __init__(
        self,
        model: Path,
        options: BenchOptions,
        command: str,
        tell: Callable[[Step], None] = lambda step: None,
    ) -> None:
        self._model, self._options, self._command, self._tell = model, options, command, tell
        self._stopped = False
        self._stages: Stages | None = None
        self._source: Source | None = None

    def stop(self) -> None:
        """End after the caption in the making and keep what there is. Safe in signal handlers."""
        self._stopped = True
        if self._stages is not None:
            self._stages.stop()

    def run(self) -> Record:
        """Measure every combination of beams, threads and engines.

        Raises ``BundleError``, ``SourceError``, ``EngineError``, ``OptionsError``.
        """
        options = self._options
        begun = datetime.now(timezone.utc)
        bundle = read_bundle(self._model)
        model = Model(
            name=bundle.manifest.name,
            family=bundle.manifest.family,
            bytes=self._model.stat().st_size,
            sha256=sha256(self._model.read_bytes()).hexdigest(),
        )
        del bundle
        todo = list(
            itertools.product(options.engines, options.precisions, options.threads, options.beams)
        )
        runs: list[Run] = []
        gpu = find_gpu()
        try:
            for number, (engine, precision, threads, beams) in enumerate(todo, 1):
                if self._stopped and runs:
                    break
                step = _Told(self._tell, number, len(todo))
                with native_precision(precision):
                    runs.append(self._one(engine, precision, threads, beams, gpu, step))
        finally:
            if gpu is not None:
                gpu.close()
        assert self._source is not None
        return Record(
            kind=KIND,
            version=VERSION,
            command=self._command,
            date=begun.isoformat(timespec="seconds"),
            commit=source_commit(),
            machine=this_machine("" if gpu is None else gpu.name),
            model=model,
            source=self._source,
            runs=runs,
            interrupted=self._stopped,
        )

    def _one(
        self,
        engine: str | None,
        precision: str | None,
        threads: int | None,
        beams: int | None,
        gpu: Gpu | None,
        told: _Told,
    ) -> Run:
        options = self._options
        address = options.address
        with open_source(address, loop=options.loop, realtime=options.realtime) as frames:
            if self._source is None:
                self._source = Source(
                    name=short_name(address),
                    generated=options.source is None,
                    live=frames.live,
                    loop=options.loop,
                    width=0,
                    height=0,
                )
            told("checks that the captions are right", 0.0)
            compared = None if frames.live or options.source is None else options.source
            equality = check_apart(str(self._model), compared, beams, threads, engine)
            told("loads the model", 0.0)
            gc.collect()
            reset_peak()
            begin = time.perf_counter()
            captioner = Captioner(read_bundle(self._model), threads=threads, engine=engine)
            load_ms = (time.perf_counter() - begin) * 1e3
            choice = captioner.engine_choice
            own = choice.engine == NATIVE
            if precision is not None and not own:
                raise OptionsError(
                    f"precision {precision} was asked for, but {choice.engine} runs the model in "
                    f"its bundle's own; give --engine {NATIVE}, or a bundle of that precision"
                )
            run = Run(
                beams=captioner.options(beams=beams).beams,
                threads=getattr(captioner.engine, "threads", threads),
                engine=choice.engine,
                engine_summary=choice.summary,
                equality=equality,
                ended="unequal",
                precision=str(getattr(captioner.engine, "precision", "")) if own else "",
            )
            if not equality.passed:
                return run
            watch = Watch(None if choice.engine in ON_CPU else gpu)
            metering = Metering(find_meters(gpu))
            before = state_now()
            self._stages = Stages(
                frames,
                captioner,
                beams=beams,
                duration=options.duration,
                captions=options.captions,
                warm_up=options.warm_up,
                watched=[metering, watch],
                seen=lambda count, seconds: told(
                    f"{count} captions",
                    max(
                        seconds / options.duration,
                        0.0 if options.captions is None else count / options.captions,
                    ),
                ),
            )
            if self._stopped:  # while it was set up
                self._stages.stop()
            measured = self._stages.run()
            self._stages = None
            width, height = measured.size
            self._source = replace(self._source, width=width, height=height)
            return figures(run, measured, load_ms, watch, metering, before)


@contextmanager
def native_precision(precision: str | None) -> Iterator[None]:
    """Own decoder steps that are opened inside, by child processes too, take ``precision``."""
    before = os.environ.get(VARIABLE)
    if precision is not None:
        os.environ[VARIABLE] = precision
    try:
        yield
    finally:
        if precision is not None:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


def figures(
    run: Run, measured: Measured, load_ms: float, watch: Watch, metering: Metering, before: State
) -> Run:
    """The run with what was measured."""
    samples = measured.samples()
    stages = {name: summarize(values) for name, values in samples.items()}
    count = len(measured.rows)
    seconds = measured.seconds
    report = measured.report
    cold = None
    if measured.first_ms is not None:
        cold = Cold(load_ms=round(load_ms, 3), first_caption_ms=round(measured.first_ms, 3))
    return replace(
        run,
        ended=measured.ended,
        problem=measured.problem,
        cold=cold,
        warm_up=measured.warm_up,
        seconds=round(seconds, 6),
        captions=count,
        received=0 if report is None else report.received,
        dropped=0 if report is None else sum(report.dropped.values()),
        captions_per_second=round(count / seconds, 3) if count else 0.0,
        stages=stages,
        samples=samples,
        usage=watch.usage,
        energy=Energy(
            joules_per_caption={
                name: round(joules / count, 6) for name, joules in metering.joules.items() if count
            },
            watts={
                name: round(joules / seconds, 3)
                for name, joules in metering.joules.items()
                if seconds > 0
            },
        ),
        before=before,
        after=state_now(),
        noise=restless(stages, watch.usage),
    )


def short_name(address: str) -> str:
    """An address as records hold it: of a path the last part, credentials masked."""
    if "://" in address and not address.startswith("file://"):
        return mask_credentials(address)
    return Path(address.removeprefix("file://")).name or address


class _Told:
    """Passes on how far a run is, not more often than somebody can read."""

    def __init__(self, tell: Callable[[Step], None], run: int, runs: int) -> None:
        self._tell, self._run, self._runs = tell, run, runs
        self._last = float("-inf")

    def __call__(self, what: str, share: float) -> None:
        now = time.monotonic()
        if share and now - self._last < TELL_PERIOD:
            return
        self._last = now
        self._tell(Step(what, self._run, self._runs, min(share, 1.0)))
