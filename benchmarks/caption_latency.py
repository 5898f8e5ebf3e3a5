"""Photograph to caption with the default bundle, side by side with the same weights in PyTorch.

    python benchmarks/caption_latency.py --out benchmarks/records/caption_latency.json

The floor is stated first: multiply-adds of the two graphs over the machine's measured rate, and the
decoder's weight bytes over its measured bandwidth.
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
from record import command, machine, paired, spread, write_atomically
from skimage import data

import edgecap
from edgecap.runtime.captioner import Captioner

CHECKPOINT = Path(__file__).parents[1] / "training/records/default/checkpoint"
NAMES = ("cat", "coffee", "astronaut", "rocket")


@click.command()
@click.option("--model", default="default", show_default=True)
@click.option("--beams", default=4, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=100, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(model: str, beams: int, threads: int, rounds: int, out: Path | None) -> None:
    """Time the captioner alone and against PyTorch."""
    captioner = edgecap.load(model, threads=threads)
    photographs = [getattr(data, name)() for name in NAMES]
    record: dict[str, Any] = {
        "command": command("benchmarks/caption_latency.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "beams": beams,
        "threads": threads,
        "floor": floor(captioner, beams),
        "caption": stages(captioner, photographs, beams, rounds),
        "against_pytorch_fp32": against_torch(captioner, photographs, beams, threads, rounds),
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def stages(
    captioner: Captioner, photographs: list[np.ndarray], beams: int, rounds: int
) -> dict[str, Any]:
    """Milliseconds by stage, decoded pixels in, and the share of decoding that is not the graph."""
    rows = []
    for i in range(rounds + 8):
        begin = time.perf_counter()
        t = captioner(photographs[i % len(photographs)], channels="RGB", beams=beams).timings
        total = (time.perf_counter() - begin) * 1e3
        overhead = (t.decode - t.step) / t.decode
        rows.append((total, t.preprocess, t.encode, t.decode, t.step / t.steps, overhead, t.steps))
    names = ("total_ms", "preprocess_ms", "encode_ms", "decode_ms", "step_ms", "decode_overhead")
    table = np.array(rows[8:])
    figures = {name: spread(table[:, i]) for i, name in enumerate(names)}
    return {**figures, "mean_steps": round(float(table[:, 6].mean()), 2)}


def against_torch(
    captioner: Captioner, photographs: list[np.ndarray], beams: int, threads: int, rounds: int
) -> dict[str, Any]:
    """The same photographs, weights, beams and beam search, with torch running the two halves."""
    import torch

    from edgecap.runtime.decoding.loop import generate
    from edgecap.training.checkpoint import load_model
    from edgecap.training.torch_engine import TorchEngine
    from edgecap.training.validate import SPECIAL

    torch.set_num_threads(threads)
    engine = TorchEngine(load_model(CHECKPOINT)[0])
    options = replace(captioner.options(beams=beams), num_return_sequences=min(2, beams))
    size = captioner.image_size
    from edgecap.runtime.image import resize_image

    def peer(index: int) -> str:
        pixels = resize_image(photographs[index], size)[None]
        best = generate(engine, engine.encode(pixels), options, SPECIAL).hypotheses[0][0]
        return captioner.tokenizer.decode(best.tokens)

    def ours(index: int) -> str:
        return captioner(photographs[index], channels="RGB", beams=beams).text

    said = [(ours(i), peer(i)) for i in range(len(photographs))]
    turn = iter(range(10**9))
    figures = paired(
        lambda: ours(next(turn) // 2 % len(photographs)),
        lambda: peer(next(turn) // 2 % len(photographs)),
        rounds // 2,
    )
    equal = sum(a == b for a, b in said)
    return {"torch": torch.__version__, "same_captions": f"{equal} of {len(said)}", **figures}


def floor(captioner: Captioner, beams: int) -> dict[str, float]:
    """What the arithmetic and the memory of this machine allow at best."""
    from edgecap.runtime.bundle import read_bundle

    bundle = read_bundle(captioner.path)
    a = np.ones((1024, 1024), np.float32)
    begin = time.perf_counter()
    for _ in range(20):
        a @ a
    rate = 20 * 2 * 1024**3 / (time.perf_counter() - begin)
    big = np.ones(1 << 26, np.float32)
    begin = time.perf_counter()
    for _ in range(5):
        big.sum()
    bandwidth = 5 * big.nbytes / (time.perf_counter() - begin)
    weights = 4 * len(bundle.files["decoder.onnx"])  # int8 in the file, float32 when it runs
    return {
        "fp32_gflops_measured": round(rate / 1e9, 1),
        "read_gb_s_measured_one_thread": round(bandwidth / 1e9, 1),
        "decoder_weight_mb_per_step": round(weights / 1e6, 1),
        "step_flop_floor_ms": round(2 * beams * weights / 4 / rate * 1e3, 3),
        "step_memory_floor_ms": round(weights / bandwidth * 1e3, 3),
    }


if __name__ == "__main__":
    main()
