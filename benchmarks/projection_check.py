"""How far the projection is off where it can be measured: this CPU, other models, beams, threads.

    python benchmarks/projection_check.py --float FP32.edgecap --large VIT-GPT2.edgecap \\
        --out benchmarks/records/projection_check.json

The shares are taken from two cases, the default model in int8 and in float32 with one thread and 4
beams; every other case is predicted from them and from the rates at that time. What
comes with the package, ``edgecap/bench/calibration.json``, is written from it.
``benchmarks/pareto.py`` makes the float bundle, ``benchmarks/peers/bundles.py`` the large one
(random weights).
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from floors import parts
from record import command, machine, write_atomically

from edgecap.bench.floors import floor_here, own_encoder, own_step
from edgecap.bench.project import FILE, predict_ms
from edgecap.bench.rates import measure_rates
from edgecap.models import resolve
from edgecap.runtime.bundle import Bundle, read_bundle

PACKAGED = Path(__file__).parents[1] / "edgecap" / "bench" / FILE
BEAMS = (1, 4, 8)
PARTS = ("encode", "step")
SMALL = ("default", "default in float32")  # the others take a second a caption


@click.command()
@click.option("--model", default="default", show_default=True, help="What calibrates.")
@click.option("--float", "plain", type=click.Path(exists=True), help="The same in float32.")
@click.option("--large", type=click.Path(exists=True), help="A bundle of ViT-GPT2's size.")
@click.option("--rounds", default=40, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(model: str, plain: str | None, large: str | None, rounds: int, out: Path | None) -> None:
    """Calibrate on one case and predict the others."""
    bundles = {"default": read_bundle(resolve(model))}
    bundles |= {name: read_bundle(path) for name, path in named(plain, large)}
    cases = [
        case(name, bundle, threads, beams, rounds if name in SMALL else rounds // 4)
        for name, bundle in bundles.items()
        for threads in (1, 2)
        for beams in (BEAMS if name == "default" else (1, 4))
    ]
    record: dict[str, Any] = {
        "command": command("benchmarks/projection_check.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        **checked(cases),
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")
        write_atomically(PACKAGED, packaged(record))


def named(plain: str | None, large: str | None) -> list[tuple[str, str]]:
    """The bundles that are there beside the default."""
    found = (("default in float32", plain), ("ViT-GPT2's size, float32", large))
    return [(name, path) for name, path in found if path is not None]


def case(name: str, bundle: Bundle, threads: int, beams: int, rounds: int) -> dict[str, Any]:
    """Floors and measured times of one case, by own kernels where they compute a graph.

    Rates are measured for each: two threads of a virtual machine share a core in some minutes.
    """
    rates = measure_rates(threads)
    times = parts(bundle, threads, beams, rounds, ("native",))["native"]
    works = {"encode": own_encoder(bundle), "step": own_step(bundle, beams=beams)}
    found: dict[str, Any] = {"model": name, "threads": threads, "beams": beams}
    found["rates"] = rates.to_dict()
    for part, work in works.items():
        measured = times[f"{part}_ms"]["median"]
        found[part] = floor_here(work, rates).to_dict(measured) | {"node_us": rates.node_us}
    return (
        found
        | {"caption_ms": times["caption_ms"]["median"], "steps": times["steps"]}
        | {"rest_ms": times["rest_ms"]["median"]}
    )


def checked(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of the small models with one thread and 4 beams; all others predicted from them."""
    bases = [
        case
        for case in cases
        if (case["threads"], case["beams"]) == (1, 4) and case["model"] in SMALL
    ]
    shares = {part: {kind(base[part]): share(base[part]) for base in bases} for part in PARTS}
    host = bases[0]["rest_ms"]
    errors = []
    for found in cases:
        for part in PARTS:
            work = found[part]
            found_share = shares[part][kind(work)]
            work["predicted_ms"] = round(
                predict_ms(work_ms(work), found_share, work["launches"], work["node_us"]), 4
            )
        steps = found["steps"] * found["step"]["predicted_ms"]
        predicted = host + found["encode"]["predicted_ms"] + steps
        found["predicted_caption_ms"] = round(predicted, 3)
        found["error"] = round(predicted / found["caption_ms"] - 1, 3)
        found["calibrates"] = found in bases
        if not found["calibrates"]:
            errors.append(abs(found["error"]))
    return {
        "encoder": shares["encode"],
        "step": shares["step"],
        "host_ms": host,
        "checks": len(errors),
        "error": round(float(np.median(errors)), 3),
        "worst": round(float(np.max(errors)), 3),
        "gpu": "never checked: no GPU was at hand",
        "cases": cases,
    }


def kind(work: dict[str, Any]) -> str:
    """Which of ``Shares`` it is for."""
    return "int8" if work["integer_mops"] else "floating"


def work_ms(work: dict[str, Any]) -> float:
    """Memory and arithmetic, one after the other."""
    return float(work["memory_ms"] + work["arithmetic_ms"])


def share(work: dict[str, Any]) -> float:
    """Of the work in what is measured, launches taken off; more than 1 is a cache's, taken as 1."""
    measured = work["ms"] - work["launches"] * work["node_us"] / 1e3
    return round(min(1.0, work_ms(work) / measured), 3)


def packaged(record: dict[str, Any]) -> str:
    """The calibration that comes with the package, from the record."""
    names = ("encoder", "step", "host_ms", "checks", "error", "worst")
    found = {name: record[name] for name in names}
    facts = record["machine"]
    found |= {"machine": f"{facts['cpu']}, {facts['cores']} cores", "date": record["date"]}
    return json.dumps(found, indent=1) + "\n"


if __name__ == "__main__":
    main()
