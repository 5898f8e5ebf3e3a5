"""Records and comparisons on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from edgecap.bench.compare import Comparison
from edgecap.bench.record import STAGES, TOTAL, Energy, Record, Run
from edgecap.bench.statistics import P99_NEEDS, P99_WANTS

TITLES = {"capture_age": "capture age"}


def print_record(record: Record, console: Console | None = None) -> None:
    """What was measured, for people."""
    console = console or Console()
    machine = record.machine
    console.print(
        f"{record.model.name} ({record.model.family}) on {machine.cpu}, {machine.cores} cores"
        + (f", {machine.gpu}" if machine.gpu else ""),
        highlight=False,
        soft_wrap=True,
    )
    console.print(source_line(record), highlight=False, soft_wrap=True)
    for run in record.runs:
        console.print()
        print_run(run, console)
    if record.interrupted:
        console.print(
            "\ninterrupted: these figures are of what was measured until then", soft_wrap=True
        )


def source_line(record: Record) -> str:
    """Where frames came from, in words."""
    source = record.source
    size = f"{source.width}x{source.height}"
    if source.generated:
        return f"frames: generated ({source.name}, {size}): no --source was given"
    return f"frames: {source.name}, {size}" + (", live" if source.live else ", one after another")


def print_run(run: Run, console: Console) -> None:
    """One run's table and lines."""
    if not run.equality.passed:
        console.print(f"{run.title}: {equality_line(run)}", highlight=False, soft_wrap=True)
        return
    table = Table(title=f"{run.title} ({run.engine_summary})", title_justify="left")
    table.add_column("milliseconds")
    for name in ("p50", "p90", "p99", "max", "spread", "drift"):
        table.add_column(name, justify="right")
    for stage in (*STAGES, TOTAL):
        if stage not in run.stages:
            continue
        one = run.stages[stage]
        table.add_row(
            TITLES.get(stage, stage),
            *(number(value) for value in (one.p50, one.p90, one.p99, one.max)),
            f"{one.spread:.0%}",
            f"{one.drift:+.1%}",
            end_section=stage == STAGES[-1],
        )
    if run.stages:
        console.print(table)
    else:
        console.print(run.title, highlight=False, soft_wrap=True)
    for line in run_lines(run):
        console.print(f"  {line}", highlight=False, soft_wrap=True)


def number(value: float | None) -> str:
    """Milliseconds, or "-" where none may be told."""
    return "-" if value is None else f"{value:.2f}"


def equality_line(run: Run) -> str:
    """What the check said, in words."""
    check = run.equality
    told = f"{check.same} of {check.pictures} captions have the tokens of the reference"
    if check.passed:
        return told
    return (
        f"{told} ({check.reference}), {check.needed} are needed: no time is told of an engine that "
        "says something else"
    )


def run_lines(run: Run) -> list[str]:
    """What a run's table does not hold, in sentences."""
    lines = [ended_line(run)]
    if run.captions:
        lines[0] += f"; {run.captions_per_second:.1f} captions/s"
    few = few_samples(run)
    if few:
        lines.append(few)
    if run.cold is not None:
        lines.append(
            f"cold: model loaded in {run.cold.load_ms:.0f} ms, first caption in "
            f"{run.cold.first_caption_ms:.1f} ms"
        )
    if run.usage is not None:
        used = run.usage
        told = (
            f"processor {used.cpu_percent:.0f} % of a core, peak memory {used.peak_rss_mb:.0f} MB"
        )
        if used.gpu_percent is not None:
            told += f", GPU {used.gpu_percent:.0f} %"
        if used.gpu_memory_mb is not None:
            told += f", GPU memory {used.gpu_memory_mb:.0f} MB"
        lines.append(told)
    if run.captions:
        lines.append(energy_line(run.energy))
        lines += state_lines(run)
    lines.append(equality_line(run))
    lines += [f"noisy: {reason}" for reason in run.noise]
    return lines


def ended_line(run: Run) -> str:
    """How a run ended, in words."""
    told = f"{run.captions} captions in {run.seconds:.1f} s after {run.warm_up} to warm up"
    if run.dropped:
        told += f", {run.dropped} frames dropped"
    if run.ended == "end of source":
        told += "; the source ended"
        if not run.captions:
            told += " in the warm-up: give --loop, or a smaller --warm-up"
    elif run.ended == "source lost":
        told += f"; the source was lost: {run.problem}"
    elif run.ended == "stopped":
        told += "; interrupted"
    return told


def few_samples(run: Run) -> str:
    """What the number of samples does not allow, in words; empty where all may be told."""
    if not run.captions or run.captions >= P99_WANTS:
        return ""
    if run.captions < P99_NEEDS:
        return f"too few samples for a p99: {run.captions}, at least {P99_NEEDS} are needed"
    return f"p99 is of {run.captions} samples: {P99_WANTS} or more make it steady"


def energy_line(energy: Energy | None) -> str:
    """Joules by meter, in words."""
    if energy is None or not energy.joules_per_caption:
        return "energy: not measured: no meter can be read here (INA3221, tegrastats, RAPL, NVML)"
    told = [
        f"{joules * 1e3:.1f} mJ a caption, {energy.watts.get(name, 0.0):.1f} W: {name}"
        for name, joules in energy.joules_per_caption.items()
    ]
    return f"energy, idle power included: {'; '.join(told)}"


def state_lines(run: Run) -> list[str]:
    """Temperature, clocks and governors before and after, in words."""
    before, after = run.before, run.after
    if before is None or after is None:
        return []
    heat = [
        "not told" if state.temperature is None else f"{state.temperature:.0f} °C"
        for state in (before, after)
    ]
    clocks = [
        f"{min(state.clocks_mhz):.0f} to {max(state.clocks_mhz):.0f} MHz"
        if state.clocks_mhz
        else "not told"
        for state in (before, after)
    ]
    governors = "/".join(before.governors or ["not told"])
    return [
        f"before and after: temperature {heat[0]}, {heat[1]}; clocks {clocks[0]}, {clocks[1]}; "
        f"governor {governors}"
    ]


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """What two records say of each other, for people."""
    console = console or Console()
    for note in comparison.notes:
        console.print(note, highlight=False, soft_wrap=True)
    for pair in comparison.pairs:
        before, after = pair.before.title, pair.after.title
        title = before if before == after else f"{before} -> {after}"
        table = Table(title=title, title_justify="left")
        table.add_column("p50, milliseconds")
        for name in ("before", "after", "ratio"):
            table.add_column(name, justify="right")
        table.add_column("after is")
        for line in pair.lines:
            table.add_row(
                TITLES.get(line.stage, line.stage),
                number(line.before_ms),
                number(line.after_ms),
                "-" if line.ratio is None else f"{line.ratio.value:.2f}",
                line.verdict,
                end_section=line.stage == STAGES[-1],
            )
        console.print(table)
        if pair.refused:
            console.print("  no verdict:", highlight=False, soft_wrap=True)
        for reason in pair.refused:
            console.print(f"    {reason}", highlight=False, soft_wrap=True)
