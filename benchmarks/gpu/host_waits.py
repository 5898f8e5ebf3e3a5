"""What the host does while a caption is decoded: a trace of CUDA's calls by CUPTI, through torch.

Must show: one graph launch, and no wait of the host before the one for the hypotheses.

    python benchmarks/gpu/host_waits.py
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import click
import numpy as np
from machine import Bench

from edgecap.models import resolve
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.decoding.options import SpecialTokens
from edgecap.runtime.engines.cuda_decoder import CudaDecoder

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy",
         "cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize")  # fmt: skip
LAUNCHES = ("cudaGraphLaunch", "cuGraphLaunch")


def run(bench: Bench, bundle: Bundle, beams: int = 4) -> dict[str, Any]:
    """Calls of one caption after the graph is there. Raises ``ValueError`` for an emulation."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    if bench.emulated:
        raise ValueError("an emulation makes no CUDA calls to trace")
    captioner = Captioner(bundle)
    special = bundle.manifest.tokenizer
    ids = SpecialTokens(bos=special.bos, eos=special.eos, pad=special.pad)
    size = captioner.image_size
    encoded = captioner.encode(np.full((size, size, 3), 128, np.uint8))
    options = captioner.options(beams=beams)
    decoder = CudaDecoder(bundle, bench.cuda, library=bench.library)
    for _ in range(2):
        decoder.decode(encoded, options, ids)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        steps = decoder.decode(encoded, options, ids).steps
    # Events in time: what came before the last wait is what counts.
    events = sorted(trace.events(), key=lambda event: event.time_range.start)
    return {"loop": decoder.describe().loop, "steps": steps, **count([e.name for e in events])}


def count(names: Iterable[str]) -> dict[str, Any]:
    """Calls by name, and whether the only wait is the one at the end.

    names : of CUDA's calls, in their order; others are not looked at
    """
    calls = [name for name in names if name.startswith(("cuda", "cu")) and name[2:3] != "b"]
    waits = [index for index, name in enumerate(calls) if name in WAITS]
    launches = [index for index, name in enumerate(calls) if name in LAUNCHES]
    inside = [w for w in waits if launches and launches[0] < w and w != waits[-1]]
    return {
        "calls": dict(Counter(calls)),
        "graph_launches": len(launches),
        "waits_inside": len(inside),
        "reached": len(launches) == 1 and not inside,
    }


@click.command()
@click.option("--model", default="default", show_default=True)
def main(model: str) -> None:
    """Print the calls as JSON."""
    click.echo(json.dumps(run(Bench(), read_bundle(resolve(model))), indent=1))


if __name__ == "__main__":
    main()
