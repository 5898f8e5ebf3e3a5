"""Photograph to caption with the default bundle, side by side with the same weights in PyTorch.

    python benchmarks/caption_latency.py --out benchmarks/records/caption_latency.json

Which engine runs is that of `edgecap.load()`; EDGECAP_ENGINE names another. The floor of a step is
stated in benchmarks/step_engine.py. Both sides pause before each call of the paired run: threads of
torch go on spinning for a while after their work, on the cores that the other side needs.
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
PAUSE_S = 0.02
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
        "engine": captioner.engine_choice.lines()[0],
        "pause_s": PAUSE_S,
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
        pause_s=PAUSE_S,
    )
    equal = sum(a == b for a, b in said)
    return {"torch": torch.__version__, "same_captions": f"{equal} of {len(said)}", **figures}


if __name__ == "__main__":
    main()
