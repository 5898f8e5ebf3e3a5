"""Two records side by side: ratios, their intervals, and what may be said of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecap.bench.record import STAGES, TOTAL, Record, Run
from edgecap.bench.statistics import P90_NEEDS, Ratio, ratio_of_medians
from edgecap.runtime.errors import OptionsError

LEAST_NOISE = 0.01  # two runs of one program differ by as much on a quiet machine


@dataclass(frozen=True)
class Line:
    """One stage of two runs. ratio : above 1 where ``after`` is faster; None with few samples"""

    stage: str
    before_ms: float
    after_ms: float
    ratio: Ratio | None
    verdict: str


@dataclass(frozen=True)
class Pair:
    """Two runs that belong together. refused : why there is no verdict, in words"""

    before: Run
    after: Run
    lines: list[Line]
    refused: list[str]


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` found. notes : what else is not the same, in words"""

    pairs: list[Pair]
    notes: list[str]


def compare(before: Record, after: Record, across_machines: bool = False) -> Comparison:
    """Compare the runs that two records have in common.

    Raises ``OptionsError`` for records of different machines, unless asked for, of different
    sources, and for records without a run in common.
    """
    machines = before.machine.differences(after.machine)
    if machines and not across_machines:
        raise OptionsError(
            f"the records are of different machines ({'; '.join(machines)}); measure both on one, "
            "or give --across-machines"
        )
    a, b = before.source, after.source
    if (a.name, a.live, a.width, a.height) != (b.name, b.live, b.width, b.height):
        raise OptionsError(
            f"the records are of different sources ({a.name}, {a.width}x{a.height}, and {b.name}, "
            f"{b.width}x{b.height}{', live' * b.live}); measure both on one"
        )
    pairs = [compared(*both) for both in matched(before.runs, after.runs)]
    if not pairs:
        titles = [
            " / ".join(run.title for run in runs) or "none" for runs in (before.runs, after.runs)
        ]
        raise OptionsError(
            f"the records have no run in common: {titles[0]} and {titles[1]}; measure with the "
            "same --beams and --threads"
        )
    notes = [f"machines: {text}" for text in machines]
    if before.model.sha256 != after.model.sha256:
        notes.append(f"models: {before.model.name} and {after.model.name}, not the same file")
    notes += [f"versions: {text}" for text in before.machine.updates(after.machine)]
    left = len(before.runs) + len(after.runs) - 2 * len(pairs)
    if left:
        notes.append(f"{left} runs have no counterpart in the other record")
    return Comparison(pairs, notes)


def matched(before: list[Run], after: list[Run]) -> list[tuple[Run, Run]]:
    """Runs of the same beams, threads and engine; those left over, of the same beams and threads
    where there is but one of them on each side."""
    pairs = []
    left, right = list(before), list(after)
    for run in before:
        same = [other for other in right if _key(other) == _key(run)]
        if same:
            pairs.append((run, same[0]))
            left.remove(run)
            right.remove(same[0])
    for run in list(left):
        mine = [other for other in left if _size(other) == _size(run)]
        theirs = [other for other in right if _size(other) == _size(run)]
        if len(mine) == len(theirs) == 1:
            pairs.append((run, theirs[0]))
            right.remove(theirs[0])
    return pairs


def compared(before: Run, after: Run) -> Pair:
    """Two runs' stages, slowest verdicts first left to the reader: in the order of the stages."""
    refused = []
    for name, run in (("before", before), ("after", after)):
        if not run.equality.passed:
            refused.append(f"{name}: its captions are not the reference's, nothing was timed")
        elif run.captions < P90_NEEDS:
            refused.append(f"{name}: {run.captions} captions, at least {P90_NEEDS} are needed")
        refused += [f"{name}: {reason}" for reason in run.noise]
    lines = []
    # What the machine moved by itself inside a run, it may move between two runs.
    drifts = [abs(run.stages["encode"].drift) for run in (before, after) if run.stages]
    floor = max([LEAST_NOISE, *drifts])
    for stage in (*STAGES, TOTAL):
        if stage not in before.stages or stage not in after.stages:
            continue
        ratio = ratio_of_medians(np.array(before.samples[stage]), np.array(after.samples[stage]))
        lines.append(
            Line(
                stage,
                before.stages[stage].p50,
                after.stages[stage].p50,
                ratio,
                "no verdict" if refused else verdict(ratio, floor),
            )
        )
    return Pair(before, after, lines, refused)


def verdict(ratio: Ratio | None, floor: float) -> str:
    """In words. floor : relative difference that is noise whatever the interval says"""
    if ratio is None:
        return "too few samples"
    interval = f"95 % {ratio.low:.2f} to {ratio.high:.2f}"
    if ratio.low > 1 and ratio.value > 1 + floor:
        return f"faster {ratio.value:.2f}x ({interval})"
    if ratio.high < 1 and ratio.value < 1 / (1 + floor):
        slower = Ratio(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)
        return f"slower {slower.value:.2f}x (95 % {slower.low:.2f} to {slower.high:.2f})"
    return "within noise"


def _key(run: Run) -> tuple[object, ...]:
    return (*_size(run), run.engine, run.precision)


def _size(run: Run) -> tuple[object, ...]:
    return run.beams, run.threads
