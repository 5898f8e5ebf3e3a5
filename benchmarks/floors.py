"""What this machine allows, and how near the encoder and a decoder step come to it, in one run.

    python benchmarks/floors.py --out benchmarks/records/floors.json

Rates and times take turns: rates, times, rates again, and the better of the two rates counts.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, spread, write_atomically
from skimage import data

from edgecap.bench.floors import (
    Work,
    decoder_work,
    encoder_work,
    floor_here,
    own_encoder,
    own_step,
)
from edgecap.bench.rates import Rates, measure_rates, read_rate
from edgecap.models import resolve
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.captioner import Captioner

NAMES = ("cat", "coffee", "astronaut", "rocket", "chelsea")
ENGINES = ("native", "onnxruntime")


@click.command()
@click.option("--model", default="default", show_default=True)
@click.option("--beams", default=4, show_default=True)
@click.option("--rounds", default=100, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(model: str, beams: int, rounds: int, out: Path | None) -> None:
    """Floors of MODEL with one thread and with two."""
    bundle = read_bundle(resolve(model))
    record: dict[str, Any] = {
        "command": command("benchmarks/floors.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": bundle.manifest.name,
        "beams": beams,
        "runs": [measure(bundle, threads, beams, rounds) for threads in (1, 2)],
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def measure(bundle: Bundle, threads: int, beams: int, rounds: int) -> dict[str, Any]:
    """Rates, measured times and floors with a number of threads."""
    rates = measure_rates(threads)
    works = {"native": own_step(bundle, beams=beams), "onnxruntime": decoder_work(bundle, beams)}
    works |= {"encoder": own_encoder(bundle), "encoder there": encoder_work(bundle)}
    reads = {name: read_rate(int(work.read), threads) for name, work in works.items()}
    times = parts(bundle, threads, beams, rounds)
    again = measure_rates(threads)
    best = {name: max(getattr(rates, name), getattr(again, name)) for name in ("fp32", "int8")}
    rates = replace(again, **best)
    for name, work in works.items():
        reads[name] = max(reads[name], read_rate(int(work.read), threads))
    rows = [row("encoder", works, rates, reads, times["native"]["encode_ms"])]
    rows.append(row("encoder there", works, rates, reads, times["onnxruntime"]["encode_ms"]))
    rows += [row(name, works, rates, reads, times[name]["step_ms"]) for name in ENGINES]
    return {"threads": threads, "rates": rates.to_dict(), "times": times, "floors": rows}


def row(
    name: str,
    works: dict[str, Work],
    rates: Rates,
    reads: dict[str, float],
    measured: dict[str, float],
) -> dict[str, Any]:
    """The floor of one piece of work beside what it took in the median."""
    found = floor_here(works[name], rates, lambda size, threads: reads[name])
    return found.to_dict(measured["median"])


def parts(
    bundle: Bundle,
    threads: int,
    beams: int,
    rounds: int,
    engines: tuple[str, ...] = ENGINES,
    pictures: list[np.ndarray] | None = None,
) -> dict[str, dict[str, Any]]:
    """Milliseconds of the encoder, of a step and of the rest, the engines taking turns."""
    if pictures is None:
        pictures = [getattr(data, name)() for name in NAMES]
    captioners = {name: Captioner(bundle, threads=threads, engine=name) for name in engines}
    tables: dict[str, list[tuple[float, ...]]] = {name: [] for name in engines}
    for turn in range(rounds + 5):
        for name, captioner in captioners.items():
            begin = time.perf_counter()
            caption = captioner(pictures[turn % len(pictures)], channels="RGB", beams=beams)
            total = (time.perf_counter() - begin) * 1e3
            t = caption.timings
            rest = total - t.encode - t.step
            tables[name].append((total, t.encode, t.step / t.steps, rest, t.steps))
    result = {}
    for name, rows in tables.items():
        table = np.array(rows[5:])
        names = ("caption_ms", "encode_ms", "step_ms", "rest_ms")
        result[name] = {key: spread(table[:, i]) for i, key in enumerate(names)}
        result[name]["steps"] = round(float(table[:, 4].mean()), 2)
    return result


if __name__ == "__main__":
    main()
