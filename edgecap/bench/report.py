"""A record as one HTML page without outside files: tables and charts."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecap.bench.record import STAGES, TOTAL, Record, Run, write_text
from edgecap.bench.tables import TITLES, equality_line, number, run_lines, source_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).parent / "report.html.j2"
MOST_POINTS = 4000  # of a chart: more are not seen and make a page of megabytes


def write_page(path: Path, record: Record) -> None:
    """Write the page in one move. Raises ``DataError`` where that cannot be."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = number
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    timed = [run for run in record.runs if run.stages]
    page = template.render(
        record=record,
        source=source_line(record),
        stages=(*STAGES, TOTAL),
        titles=TITLES,
        lines={run.title: run_lines(run) for run in timed},
        refused=[(run.title, equality_line(run)) for run in record.runs if not run.equality.passed],
        charts=charts(timed),
    )
    write_text(path, page)


def charts(runs: list[Run]) -> dict[str, str]:
    """Title -> SVG as a data address; none without times."""
    if not runs:
        return {}
    return {
        "Where the time goes: median of each stage": _stacks(runs),
        "Share of captions that took at most so long": _shares(runs),
        "Each caption in the order of measurement": _course(runs),
    }


def _stacks(runs: list[Run]) -> str:
    figure, axes = _figure(1.2 + 0.5 * len(runs))
    left = np.zeros(len(runs))
    places = np.arange(len(runs))
    for stage in STAGES:
        widths = np.array([run.stages[stage].p50 for run in runs])
        axes.barh(places, widths, 0.6, left=left, label=TITLES.get(stage, stage))
        left += widths
    axes.set_yticks(places, [run.title for run in runs])
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.legend(ncols=len(STAGES), fontsize="small", loc="upper left", bbox_to_anchor=(0, 1.3))
    return _address(figure)


def _shares(runs: list[Run]) -> str:
    figure, axes = _figure(3.2)
    for run in runs:
        times = np.sort(run.samples[TOTAL])
        shown = np.linspace(0, len(times) - 1, min(len(times), MOST_POINTS)).astype(int)
        axes.plot(times[shown], (shown + 1) / len(times), label=run.title)
    axes.set(xlabel="ms from capture to caption", ylabel="share", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return _address(figure)


def _course(runs: list[Run]) -> str:
    figure, axes = _figure(3.2)
    for run in runs:
        times = np.array(run.samples[TOTAL])
        step = -(-len(times) // MOST_POINTS)
        # The slowest of neighbours stands for them: outliers must not fall between the points.
        padded = np.pad(times, (0, -len(times) % step), mode="edge").reshape(-1, step).max(1)
        axes.plot(np.arange(len(padded)) * step, padded, ".", markersize=2, label=run.title)
    axes.set(xlabel="caption", ylabel="ms from capture to caption")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", markerscale=4)
    return _address(figure)


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height))
    return figure, figure.subplots()


def _address(figure: Figure) -> str:
    text = io.BytesIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(text.getvalue()).decode()
