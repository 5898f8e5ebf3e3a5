"""The plots of docs/performance.md, drawn from records; the same records give the same bytes."""

from __future__ import annotations

import io
from typing import Any

FRONT, OTHER, DEFAULT = "#0b6e4f", "#9aa5b1", "#c8553d"
STYLE = {
    "svg.hashsalt": "edgecap",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
TITLES = {
    "threads": "threads",
    "beams": "beams",
    "batch": "pictures together",
    "length": "tokens of a caption",
    "size": "side of a JPEG, pixels",
    "cameras": "cameras at 30 frames/s",
}


def plots(records: dict[str, Any]) -> dict[str, str]:
    """File name -> SVG, of the records that are there."""
    found = {}
    if "pareto" in records:
        found["pareto.svg"] = pareto(records["pareto"])
    if "scaling" in records:
        found["scaling.svg"] = scaling(records["scaling"])
    return found


def pareto(record: dict[str, Any]) -> str:
    """CIDEr against milliseconds and against megabytes."""
    import matplotlib.pyplot as plt

    default = record["default"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
        for axis, key, name in zip(axes, ("ms", "mb"), ("milliseconds", "megabytes"), strict=True):
            for point in record["points"]:
                where = point["ms"]["median"] if key == "ms" else point["mb"]
                mine = all(point[field] == value for field, value in default.items())
                front = not point[f"dominated_by_{key}"]
                colour = DEFAULT if mine else FRONT if front else OTHER
                size = 60 if mine else 28
                axis.scatter(where, point["CIDEr"], s=size, color=colour, zorder=3 if mine else 2)
                if front and not mine:
                    text = f"{point['model'].replace('default ', '')}, {point['beams']}"
                    axis.annotate(
                        text,
                        (where, point["CIDEr"]),
                        textcoords="offset points",
                        xytext=(5, 4 if point["beams"] % 2 else -10),
                        fontsize=7,
                    )
            axis.set_xlabel(name)
        axes[0].set_ylabel("CIDEr, Flickr8k test")
        for colour, label in ((DEFAULT, "as shipped"), (FRONT, "front"), (OTHER, "dominated")):
            axes[1].scatter([], [], color=colour, label=label)
        axes[1].legend(loc="center")
        figure.tight_layout()
        return _svg(figure)


def scaling(record: dict[str, Any]) -> str:
    """Median and 99th percentile of every curve."""
    import matplotlib.pyplot as plt

    curves = record["curves"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 3, figsize=(9, 5.2))
        for axis, (name, title) in zip(axes.flat, TITLES.items(), strict=True):
            if name not in curves:
                axis.set_visible(False)
                continue
            points = curves[name]["points"]
            at = [point["at"] for point in points]
            median = [point["ms"]["median"] for point in points]
            worst = [point["ms"]["p99"] for point in points]
            axis.plot(at, median, marker="o", markersize=4, color=FRONT, label="median")
            axis.plot(at, worst, linestyle=":", marker=".", color=OTHER, label="99th percentile")
            if name in ("batch", "size"):
                axis.set_xscale("log", base=2)
                axis.set_xticks(at, [str(each) for each in at])
            else:
                axis.set_xticks(at)
            axis.set_ylim(bottom=0)
            axis.set_xlabel(title)
            axis.set_ylabel("ms")
        axes.flat[0].legend()
        figure.tight_layout()
        return _svg(figure)


def _svg(figure: Any) -> str:
    import matplotlib.pyplot as plt

    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines()) + "\n"
