"""One beam step from fp16 logits against torch's log_softmax + topk + gathers in a CUDA graph.

Must reach: V = 50257, K = 4, batch 1 at least 3 times faster than torch; at batch 16 at least 60 %
of the time floor of reading the logits once.

    python benchmarks/gpu/beam_step.py
    python benchmarks/gpu/beam_step.py --emulated build/libedgecap_emulated.so --vocab 501

Each of 16 steps has logits of its own, so that a large cache does not hold them all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import Bench, rounded

from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.reference import ReferenceSearch
from edgecap.runtime.engines.cuda_library import CudaBeamSearch

STEPS = 16
TIMES_TORCH, SHARE_OF_FLOOR = 3.0, 0.6
SPECIAL = SpecialTokens(bos=1, eos=2, pad=0)


def measure(bench: Bench, vocab: int, beams: int, batch: int) -> dict[str, Any]:
    """Times of a step in milliseconds, ours and torch's, and whether tokens are the reference's."""
    import torch

    rows, device = batch * beams, bench.cuda.where
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(STEPS, rows, vocab, generator=generator).half()
    logits[
        ..., SPECIAL.eos
    ] = -30.0  # all beams run to the end, so that every step has all its work
    logits = logits.to(device)
    options = DecodingOptions(beams=beams, max_new_tokens=STEPS)
    search = CudaBeamSearch(bench.library, bench.cuda, batch, vocab, STEPS, options, SPECIAL)

    def ours() -> None:
        search.reset()
        for step in range(STEPS):
            search.step(logits[step].data_ptr(), "float16")

    def theirs() -> None:
        running = torch.zeros(batch, beams, device=device)
        tokens = torch.zeros(batch, beams, dtype=torch.int64, device=device)
        for step in range(STEPS):
            scores = torch.log_softmax(logits[step].float(), -1).view(batch, beams, vocab)
            scores = (scores + running[..., None]).view(batch, -1)
            best, index = scores.topk(2 * beams, -1)
            ended = index % vocab == SPECIAL.eos
            order = torch.sort(ended.int(), dim=-1, stable=True).indices[:, :beams]
            running, kept = best.gather(1, order), index.gather(1, order)
            parents, tokens = kept // vocab, kept % vocab
            tokens = tokens + 0 * parents  # both are read by a decoder

    ours_ms = bench.milliseconds(bench.captured(ours)) / STEPS
    torch_ms = bench.milliseconds(bench.captured(theirs)) / STEPS
    search.reset()
    ours()
    found = search.finish()
    reference = ReferenceSearch(batch, vocab, STEPS, options, SPECIAL)
    for step in range(STEPS):
        reference.step(logits[step].float().cpu().numpy())
    expected = reference.finish()
    same = all(
        a[0].tokens == b[0].tokens and np.isclose(a[0].score, b[0].score, atol=1e-3)
        for a, b in zip(found, expected, strict=True)
    )
    search.close()
    read_mb = rows * vocab * 2 / 1e6
    bandwidth = bench.bandwidth()
    floor_ms = read_mb / bandwidth
    return {
        "vocab": vocab,
        "beams": beams,
        "batch": batch,
        "same_as_reference": same,
        "ours_ms": rounded(ours_ms),
        "torch_graph_ms": rounded(torch_ms),
        "times_torch": rounded(torch_ms / ours_ms, 2),
        "logits_mb": round(read_mb, 3),
        "bandwidth_measured_gb_s": rounded(bandwidth, 1),
        "share_of_floor": rounded(floor_ms / ours_ms, 3),
    }


def run(bench: Bench, vocab: int = 50257) -> dict[str, Any]:
    """All cases, and whether what must be reached is."""
    cases = [
        measure(bench, vocab, beams, batch)
        for beams, batch in ((1, 1), (4, 1), (8, 1), (4, 16), (8, 16))
    ]
    found: dict[str, Any] = {"cases": cases}
    if not bench.emulated:
        one, many = cases[1]["times_torch"], cases[3]["share_of_floor"]
        found["verdict"] = {
            "times_torch": f"{one} (at least {TIMES_TORCH})",
            "share_of_floor": f"{many} (at least {SHARE_OF_FLOOR})",
            "reached": bool(one >= TIMES_TORCH and many >= SHARE_OF_FLOOR),
        }
    return found


@click.command()
@click.option("--vocab", default=50257, show_default=True)
@click.option("--emulated", type=click.Path(exists=True, path_type=Path), help="No times then.")
def main(vocab: int, emulated: Path | None) -> None:
    """Print the cases as JSON."""
    click.echo(json.dumps(run(Bench(emulated), vocab), indent=1))


if __name__ == "__main__":
    main()
