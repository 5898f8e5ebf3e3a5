"""Micro benchmarks against those saved: which became slower than the others did.

    pytest benchmarks --benchmark-json=build/micro.json
    python benchmarks/regressions.py build/micro.json         # compare
    python benchmarks/regressions.py build/micro.json --save  # the next are compared with these

A machine that is slower today makes every ratio larger, so each benchmark's ratio is told over the
median ratio of all. A regression is one over what noise explains: the interquartile ranges of both
measurements, and at least 15 %. Exit code 1: there is a regression, or a benchmark is gone; 2: the
file is none of pytest-benchmark's. Saved ones of another machine are not compared with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import machine, write_atomically

SAVED = Path(__file__).parent / "records/micro.json"
LEAST = 0.15  # two runs on a quiet machine differ by as much
SAME = ("cpu", "cores")  # of a machine, for times to be compared


@click.command()
@click.argument("measured", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--save", is_flag=True, help="Save these instead of comparing.")
@click.option("--saved", type=click.Path(path_type=Path), default=SAVED, help="The record.")
def main(measured: Path, save: bool, saved: Path) -> None:
    """Compare pytest-benchmark's JSON file MEASURED with the saved benchmarks."""
    try:
        record = slim(json.loads(measured.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"{measured} is no file of --benchmark-json: {error!r}") from None
    if save:
        write_atomically(saved, json.dumps(record, indent=1) + "\n")
        click.echo(f"{len(record['benchmarks'])} benchmarks saved in {saved.name}")
        return
    if not saved.exists():
        raise click.UsageError(f"{saved.name} is not there; make it with --save")
    before = json.loads(saved.read_text())
    for name in SAME:
        if before["machine"][name] != record["machine"][name]:
            click.echo(
                f"not compared: the saved benchmarks are of another machine "
                f"({before['machine'][name]}, this has {record['machine'][name]}); make your own "
                "with --save --saved FILE"
            )
            return
    lines, failed = compare(before["benchmarks"], record["benchmarks"])
    click.echo("\n".join(lines))
    if failed:
        raise SystemExit(1)


def slim(told: dict[str, Any]) -> dict[str, Any]:
    """What is kept of pytest-benchmark's file: seconds, and what they were measured on."""
    return {
        "command": "pytest benchmarks --benchmark-json=build/micro.json",
        "date": told["datetime"],
        "commit": str(told["commit_info"].get("id", ""))[:12],
        "machine": machine(),
        "benchmarks": {
            one["fullname"].rpartition("/")[2]: {
                "median_s": one["stats"]["median"],
                "iqr_s": one["stats"]["iqr"],
                "rounds": one["stats"]["rounds"],
            }
            for one in told["benchmarks"]
        },
    }


def compare(
    before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]
) -> tuple[list[str], bool]:
    """A line for each benchmark, the worst first, and whether there is a regression."""
    both = sorted(before.keys() & after.keys())
    gone, new = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    lines = [f"gone: {name}" for name in gone] + [f"new: {name}" for name in new]
    if not both:
        return [*lines, "no benchmark is in both"], True
    ratios = np.array([after[name]["median_s"] / before[name]["median_s"] for name in both])
    common = float(np.median(ratios))
    lines.append(f"{len(both)} benchmarks, the median one takes {common:.2f} times as long")
    failed = bool(gone)
    for place in np.argsort(-ratios):
        name, ratio = both[place], float(ratios[place]) / common
        noise = max(LEAST, *(one[name]["iqr_s"] / one[name]["median_s"] for one in (before, after)))
        verdict = "within noise"
        if ratio > 1 + noise:
            verdict, failed = "REGRESSION", True
        elif ratio < 1 / (1 + noise):
            verdict = "faster"
        lines.append(f"{ratio:6.2f}x  noise {noise:4.0%}  {verdict:12}  {name}")
    return lines, failed


if __name__ == "__main__":
    main()
