"""docs/performance.md and its plots, from the records alone.

    python benchmarks/performance_page.py             prints the page
    python benchmarks/performance_page.py --write     writes docs/performance.md and docs/images

A test compares the page with what this prints, and README's headline figures with the records.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from performance_plots import plots
from performance_quality import growth, quality
from performance_tables import cold_start, floors, peers, projection, steps, streams
from record import write_atomically

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
Section = Callable[[dict[str, Any]], str]
SECTIONS: tuple[tuple[str, Section], ...] = (
    ("Floors, and how near we are", floors),
    ("Quality for each millisecond", quality),
    ("How it grows", growth),
    ("Peers", peers),
    ("Decoder steps", steps),
    ("Streams", streams),
    ("Cold start", cold_start),
    ("Devices that nobody here has", projection),
)
HEAD = """\
# Performance

This page is written by `benchmarks/performance_page.py` from
[benchmarks/records](../benchmarks/records); each record states its command, machine, date and
versions. Times are medians (99th percentile) in milliseconds unless a line says otherwise. Machines
of this kind are shared and noisy: ratios of runs that took turns say more than times.
"""


def read_records() -> dict[str, Any]:
    """Name -> record, of all there are."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))}


def page(records: dict[str, Any]) -> str:
    """The whole page in Markdown."""
    parts = [HEAD, "## In three figures\n", *three_figures(records)]
    for title, section in SECTIONS:
        parts += [f"\n## {title}\n", section(records)]
    return "\n".join(part.rstrip("\n") if part is not HEAD else part for part in parts) + "\n"


def headlines(records: dict[str, Any]) -> list[tuple[str, tuple[str, ...], str]]:
    """README's three figures: how its row begins, what the row must say, and the sentence here."""
    latency, engines = records["caption_latency"], records["step_engine"]
    total, peer = latency["caption"]["total_ms"], latency["against_pytorch_fp32"]
    run = next(r for r in engines["runs"] if (r["threads"], r["beams"]) == (2, 4))
    own, other = run["int8"]["step_ms"]["median"], run["onnxruntime"]["step_ms"]["median"]
    times = f"{peer['ratio_median']:.1f}"
    cores = latency["machine"]["cores"]
    return [
        (
            "photograph to caption",
            (f"{total['median']:.1f} ms", f"{total['p99']:.1f} ms"),
            f"**{total['median']:.1f} ms** ({total['p99']:.1f}) from a photograph's pixels to its "
            f"caption, {cores} cores, {latency['beams']} beams (`caption_latency.json`)",
        ),
        (
            "the same weights in PyTorch",
            (f"{times} times",),
            f"**{times} times** as fast as the same weights in PyTorch {peer['torch']} float32, "
            f"in turn on the same photographs (`caption_latency.json`)",
        ),
        (
            "own decoder steps on the CPU",
            (f"{own:.2f} ms", f"{other:.2f}"),
            f"**{own:.2f} ms** a decoder step against {other:.2f} in ONNX Runtime, 2 threads, "
            "4 beams (`step_engine.json`)",
        ),
    ]


def three_figures(records: dict[str, Any]) -> list[str]:
    """The headlines as a list."""
    return [f"- {sentence}" for _, _, sentence in headlines(records)]


@click.command()
@click.option("--write", is_flag=True, help="Change docs/performance.md and docs/images.")
def main(write: bool) -> None:
    """Print the page."""
    records = read_records()
    text = page(records)
    if write:
        for name, svg in plots(records).items():
            write_atomically(IMAGES / name, svg)
        write_atomically(PAGE, text)
    else:
        click.echo(text, nl=False)


if __name__ == "__main__":
    main()
