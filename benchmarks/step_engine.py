"""A decoder step in ONNX Runtime and by own CPU kernels, in turn, with the default bundle.

    python benchmarks/step_engine.py --out benchmarks/records/step_engine.json

The floor is the packed weights' bytes over the bandwidth that numpy copies at in the same run.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, spread, write_atomically
from skimage import data

import edgecap
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.native_step import PRECISIONS, NativeStepEngine
from edgecap.runtime.engines.onnx import OnnxEngine

NAMES = ("cat", "coffee", "astronaut", "rocket")


@click.command()
@click.option("--rounds", default=60, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(rounds: int, out: Path | None) -> None:
    """Milliseconds of a step, of decoding and of a whole caption."""
    record: dict[str, Any] = {
        "command": command("benchmarks/step_engine.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "copy_bytes_per_s": bandwidth(),
        "runs": [measure(threads, beams, rounds) for threads in (1, 2) for beams in (1, 4, 8)],
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def measure(threads: int, beams: int, rounds: int) -> dict[str, Any]:
    """Every engine captions the same photographs in turn."""
    bundle = read_bundle(Path(edgecap.__file__).parent / "models/default.edgecap")
    engines: dict[str, Any] = {"onnxruntime": OnnxEngine(bundle, threads=threads)}
    for precision in PRECISIONS:
        engines[precision] = NativeStepEngine(bundle, threads=threads, precision=precision)
    captioners = {name: Captioner(bundle, engine=engine) for name, engine in engines.items()}
    photographs = [getattr(data, name)() for name in NAMES]
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in engines}
    said: dict[str, list[Any]] = {name: [] for name in engines}
    for turn in range(rounds + 4):
        for name, captioner in captioners.items():
            picture = photographs[turn % len(photographs)]
            begin = time.perf_counter()
            caption = captioner(picture, channels="RGB", beams=beams)
            total = (time.perf_counter() - begin) * 1e3
            t = caption.timings
            said[name].append(caption.tokens)
            rows[name].append((t.step / t.steps, t.decode, total))
    result: dict[str, Any] = {"threads": threads, "beams": beams, "rounds": rounds}
    steps = {name: np.array(found)[4:, 0] for name, found in rows.items()}
    for name, found in rows.items():
        table = np.array(found)[4:]
        names = ("step_ms", "decode_ms", "caption_ms")
        result[name] = {key: spread(table[:, i]) for i, key in enumerate(names)}
        result[name]["same_tokens"] = said[name] == said["onnxruntime"]
        result[name]["step_ratio"] = round(float(np.median(steps["onnxruntime"] / steps[name])), 2)
        if name in PRECISIONS:
            result[name]["weight_bytes"] = engines[name].weight_bytes
    return result


def bandwidth() -> float:
    """Bytes read and written a second by the best of ten copies of 64 MB."""
    source = np.ones(8_000_000)
    target = np.empty_like(source)
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - begin)
    return round(2 * source.nbytes / min(times))


if __name__ == "__main__":
    main()
