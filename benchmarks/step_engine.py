"""A decoder step in ONNX Runtime and by own CPU kernels, in turn, with the default bundle.

    python benchmarks/step_engine.py --out benchmarks/records/step_engine.json

A step reads every packed matrix once. Its floor is their bytes over the bandwidth that numpy copies
at in the same run, with the same threads, blocks as large as those matrices, which the caches may
hold. What memory beyond the caches gives stands beside it. Own steps sum the exponentials of their
logits for the search, too.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, spread, write_atomically
from skimage import data

import edgecap
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.cuda_spec import TransformerSpec
from edgecap.runtime.engines.native_spec import read_spec
from edgecap.runtime.engines.native_step import PRECISIONS, NativeStepEngine
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.engines.onnx_weights import load_model

IN_CACHE, IN_MEMORY = 6_000_000, 128_000_000
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
        "copied_bytes_per_s": {
            f"{size // 10**6} MB, {threads} threads": bandwidth(size, threads)
            for size in (IN_CACHE, IN_MEMORY)
            for threads in (1, 2)
        },
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
    tables = sum(table.nbytes for table in tables_of(bundle))
    cached = bandwidth(IN_CACHE, threads)
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
            read = engines[name].weight_bytes - tables
            result[name]["bytes_per_step"] = read
            result[name]["floor_ms"] = round(read / cached * 1e3, 4)
    return result


def tables_of(bundle: Bundle) -> list[np.ndarray]:
    """What a step looks a few rows up in, and does not read as a whole."""
    file = bundle.manifest.graphs.decoder.file
    spec = read_spec(bundle, load_model(bundle.files[file], file))
    return [spec.words, spec.places] if isinstance(spec, TransformerSpec) else [spec.words]


def bandwidth(size: int, threads: int) -> int:
    """Bytes read and written a second by the best of ten rounds; ``size`` bytes in all."""
    parts = [np.ones(size // threads // 2, np.uint8) for _ in range(threads)]
    targets = [np.empty_like(part) for part in parts]
    copies = max(1, 600_000_000 // size)

    def copy(target: np.ndarray, part: np.ndarray) -> None:
        for _ in range(copies):
            np.copyto(target, part)

    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(10):
            begin = time.perf_counter()
            list(pool.map(copy, targets, parts))
            times.append((time.perf_counter() - begin) / copies)
    return round(2 * sum(part.nbytes for part in parts) / min(times))


if __name__ == "__main__":
    main()
