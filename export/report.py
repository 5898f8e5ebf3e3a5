"""What an export found, for people: one HTML page without outside files, and its charts."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from edgecap.export.gate import Check
from edgecap.export.sensitivity import LayerError
from edgecap.runtime.bundle import Bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.files import replacing
from edgecap.runtime.image import RGB
from edgecap.runtime.manifest import ExportRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROUNDS = 15
TEMPLATE = Path(__file__).parent / "report.html.j2"


@dataclass(frozen=True)
class Variant:
    """One precision of the model: bytes of its bundle, medians in milliseconds on this machine.

    step_ms : mean over the steps of a caption; encode_ms, step_ms and caption_ms are for the
        bundle's own number of beams, one picture at a time
    """

    name: str
    bytes: int
    encode_ms: float
    step_ms: float
    caption_ms: float
    encode_p99_ms: float
    caption_p99_ms: float


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    metrics : precision -> metric -> value, where captions to compare with were given
    """

    title: str
    record: ExportRecord
    checks: Sequence[Check]
    variants: Sequence[Variant]
    layers: Sequence[LayerError] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def measure(name: str, bundle: Bundle, pictures: Sequence[RGB], threads: int) -> Variant:
    """Time a bundle on photographs, uint8 RGB [H, W, 3], one at a time, warm."""
    captioner = Captioner(bundle, threads=threads)
    options = captioner.options()
    encode, step, caption = [], [], []
    for number in range(-2, ROUNDS):
        picture = pictures[number % len(pictures)]
        pixels = captioner.resize(picture)[None]
        start = perf_counter()
        encoded = captioner.engine.encode(pixels)
        middle = perf_counter()
        decoded = captioner.search(encoded, options)
        if number < 0:  # the first runs allocate
            continue
        encode.append((middle - start) * 1e3)
        step.append(decoded.step_ms / decoded.steps)
        caption.append((perf_counter() - start) * 1e3)
    return Variant(
        name,
        bundle.path.stat().st_size,
        *(float(np.median(one)) for one in (encode, step, caption)),
        *(float(np.percentile(one, 99)) for one in (encode, caption)),
    )


def write_report(path: Path, report: Report) -> Path:
    """Write the page in one move; returns ``path``."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text())
    page = template.render(report=report, charts=_charts(report))
    with replacing(path) as file:
        file.write(page.encode())
    return path


def _charts(report: Report) -> dict[str, str]:
    """Title -> SVG as a data address."""
    charts = {
        "Size": _bars({v.name: {"MB": v.bytes / 1e6} for v in report.variants}, "MB"),
        "Latency, median": _bars(
            {v.name: {"encoder": v.encode_ms, "caption": v.caption_ms} for v in report.variants},
            "ms",
        ),
    }
    if report.metrics:
        charts["CIDEr"] = _bars(
            {name: {"CIDEr": values["CIDEr"]} for name, values in report.metrics.items()}, ""
        )
    if report.layers:
        charts["Error of each layer in int8 alone"] = _layers(report)
    return charts


def _bars(rows: Mapping[str, Mapping[str, float]], unit: str) -> str:
    figure, axes = _figure(4.2, 0.9 + 0.5 * len(rows))
    series = list(next(iter(rows.values())))
    height = 0.8 / len(series)
    for number, name in enumerate(series):
        places = np.arange(len(rows)) + number * height
        bars = axes.barh(places, [row[name] for row in rows.values()], height, label=name)
        axes.bar_label(bars, fmt=f"%.3g {unit}".strip(), padding=3)
    axes.set_yticks(np.arange(len(rows)) + 0.4 - height / 2, list(rows))
    axes.invert_yaxis()
    axes.margins(x=0.25)
    if len(series) > 1:
        axes.legend()
    return _address(figure)


def _layers(report: Report) -> str:
    figure, axes = _figure(9, 3.2)
    left = set(report.record.float_layers)
    places = np.arange(len(report.layers))
    errors = [max(one.error, 1e-12) for one in report.layers]
    colours = ["tab:orange" if one.name in left else "tab:blue" for one in report.layers]
    axes.bar(places, errors, color=colours)
    axes.set_yscale("log")
    axes.set(xlabel="layer, from the picture on (orange: left in float)", ylabel="relative energy")
    return _address(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height))
    return figure, axes


def _address(figure: Figure) -> str:
    from matplotlib import pyplot

    text = io.BytesIO()
    figure.tight_layout()
    figure.savefig(text, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(text.getvalue()).decode()
