"""docs/performance.md, its plots and README's headline figures against the records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pareto
import performance_page
import performance_quality
import performance_tables
import pytest

from edgecap.models import bundled

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def records() -> dict[str, Any]:
    return performance_page.read_records()


@pytest.mark.skipif("default" not in bundled(), reason="this checkout has no default model")
def test_the_page_is_what_the_records_say(records: dict[str, Any]) -> None:
    pytest.importorskip("onnx")
    written = (ROOT / "docs" / "performance.md").read_text()
    assert written == performance_page.page(records), (
        "run python benchmarks/performance_page.py --write"
    )


def test_the_plots_are_drawn_from_the_records(records: dict[str, Any]) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    drawn = performance_page.plots(records)
    assert set(drawn) == {"pareto.svg", "scaling.svg"}
    for name, svg in drawn.items():
        written = (ROOT / "docs" / "images" / name).read_text()
        made_by = re.search(r"Matplotlib v([\d.]+\d)", written)
        assert made_by is not None
        if made_by[1] == matplotlib.__version__:  # each version draws a little differently
            assert written == svg, "run python benchmarks/performance_page.py --write"
        assert written.count("<use ") > 10


def test_readme_has_the_figures_of_the_records(records: dict[str, Any]) -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    for begins, figures, _ in performance_page.headlines(records):
        row = next((line for line in rows if line.startswith(f"| {begins}")), None)
        assert row is not None, f"README has no row that begins with {begins!r}"
        for figure in figures:
            assert figure in row, f"README says {row!r}; the record says {figure}"


def test_the_shipped_model_is_on_the_front_or_the_page_names_what_dominates_it(
    records: dict[str, Any],
) -> None:
    points = records["pareto"]["points"]
    shipped = performance_quality.default_of(records["pareto"])
    text = performance_quality.quality(records)
    for axis in ("ms", "mb"):
        over = [other for other in points if pareto.dominates(other, shipped, axis)]
        assert [pareto.other_name(other) for other in over] == shipped[f"dominated_by_{axis}"]
        for other in over:
            assert performance_quality.name(other) in text
        if over:
            assert "does **not** lie on the front" in text


def point(ms: float, mb: float, cider: float) -> dict[str, Any]:
    return {"ms": {"median": ms}, "mb": mb, "CIDEr": cider}


def test_what_dominates() -> None:
    dominates = pareto.dominates
    base = point(10.0, 5.0, 0.6)
    assert dominates(point(9.0, 9.0, 0.6), base, "ms")
    assert dominates(point(10.0, 9.0, 0.7), base, "ms")
    assert not dominates(point(10.0, 5.0, 0.6), base, "ms")  # equal
    assert not dominates(point(11.0, 1.0, 0.9), base, "ms")
    assert dominates(point(11.0, 1.0, 0.9), base, "mb")


def test_a_peer_that_stays_ahead_is_named() -> None:
    ahead = performance_tables.ahead
    row = {"edgecap int8": {"ms": {"median": 2.0}}, "other": {"ms": {"median": 1.0}}}
    assert "stay ahead" in ahead(row, 4)
    assert "`other` is 2.00 times" in ahead(row, 4)
    row["other"]["ms"]["median"] = 3.0
    assert "1.50 times as fast as the best peer, `other`" in ahead(row, 1)
