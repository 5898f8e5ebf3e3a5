"""The one-file ONNX captioner beside ``Captioner``, and its caches in both forms.

    python benchmarks/single_file.py --out benchmarks/records/single_file.json

Both take pictures that are resized already. Times are of this process's CPU with one thread, in
turn, so that other work on the machine hits neither.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, spread, write_atomically
from skimage import data

import edgecap
from edgecap.export.single_file.write import build_model
from edgecap.models import resolve
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.engines.onnx import open_session

NAMES = ("cat", "coffee", "astronaut", "rocket")
FORMS = ("grow", "fixed")


@click.command()
@click.option("--model", default="default", show_default=True)
@click.option("--rounds", default=60, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(model: str, rounds: int, out: Path | None) -> None:
    """Time both with four beams and with one."""
    record: dict[str, Any] = {
        "command": command("benchmarks/single_file.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "threads": 1,
        "rounds": rounds,
    }
    for beams in (4, 1):
        record[f"beams_{beams}"] = compare(model, beams, rounds)
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def compare(model: str, beams: int, rounds: int) -> dict[str, Any]:
    """CPU milliseconds from resized pixels to the caption, and files over ``Captioner``."""
    captioner = edgecap.load(model, threads=1)
    options = captioner.options(beams=beams)
    pictures = [captioner.resize(getattr(data, name)()) for name in NAMES]
    ways: dict[str, Callable[[np.ndarray], object]] = {
        "captioner": lambda p: captioner.decode(captioner.engine.encode(p[None]), options)
    }
    for form in FORMS:
        proto = build_model(read_bundle(resolve(model)), options, form)
        session = open_session(proto.SerializeToString(), form, 1)
        ways[form] = lambda p, session=session: session.run(None, {"image": p})
    times = np.zeros((rounds, len(ways)))
    for number in range(-5, rounds):  # the first five warm up
        for column, call in enumerate(ways.values()):
            begin = time.process_time()
            call(pictures[number % len(pictures)])
            times[number, column] = (time.process_time() - begin) * 1e3
    figures: dict[str, Any] = {
        f"{name}_ms": spread(times[:, column]) for column, name in enumerate(ways)
    }
    for column, form in enumerate(FORMS, 1):
        figures[f"{form}_over_captioner"] = round(
            float(np.median(times[:, column] / times[:, 0])), 3
        )
    return figures


if __name__ == "__main__":
    main()
