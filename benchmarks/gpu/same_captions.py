"""Whether the kernels say of photographs what the CPU says: all in fp32, 99 of 100 in fp16.

    python benchmarks/gpu/same_captions.py FOLDER --count 500
    python benchmarks/gpu/same_captions.py FOLDER --count 3 --emulated build/libedgecap_emulated.so

The encoder runs on the CPU for both, so that what differs is the decoder's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import Bench

from edgecap.models import resolve
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.cuda_decoder import CudaDecoder
from edgecap.runtime.errors import ImageError
from edgecap.runtime.image import load_image

LEAST = {"fp32": 1.0, "fp16": 0.99}
TOLERANCE = 1e-3  # of a score, in fp32
KINDS = (".jpg", ".jpeg", ".png")


def run(bench: Bench, bundle: Bundle, folder: Path, count: int) -> dict[str, Any]:
    """Shares of equal captions for K = 1 and 4, and how far equal ones are apart in score."""
    from edgecap.runtime.decoding.options import SpecialTokens

    captioner = Captioner(bundle)
    special = bundle.manifest.tokenizer
    ids = SpecialTokens(bos=special.bos, eos=special.eos, pad=special.pad)
    encoded = [captioner.encode(picture) for picture in photographs(folder, count)]
    found: dict[str, Any] = {"photographs": len(encoded)}
    reached = True
    for precision, least in LEAST.items():
        cuda = None if bench.emulated else bench.cuda
        decoder = CudaDecoder(bundle, cuda, precision=precision, library=bench.library)
        for beams in (1, 4):
            options = captioner.options(beams=beams)
            equal, apart = [], 0.0
            for one in encoded:
                expected = captioner.search(one, options).hypotheses[0][0]
                said = decoder.decode(one, options, ids).hypotheses[0][0]
                equal.append(tuple(said.tokens) == tuple(expected.tokens))
                if equal[-1]:
                    apart = max(apart, abs(said.score - expected.score))
            share = float(np.mean(equal))
            good = share >= least and (precision != "fp32" or apart <= TOLERANCE)
            reached = reached and good
            found[f"{precision}, K={beams}"] = {
                "same": round(share, 4), "at_least": least, "scores_apart": round(apart, 6)
            }  # fmt: skip
        decoder.close()
    return {**found, "reached": reached}


def photographs(folder: Path, count: int) -> list[np.ndarray]:
    """The first readable pictures of a folder, by name."""
    found: list[np.ndarray] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in KINDS):
        if len(found) == count:
            break
        try:
            found.append(load_image(path))
        except ImageError:
            continue
    if not found:
        raise ImageError(f"{folder} holds no picture; give a folder of JPEG or PNG files")
    return found


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", default="default", show_default=True)
@click.option("--count", default=500, show_default=True)
@click.option("--emulated", type=click.Path(exists=True, path_type=Path))
def main(folder: Path, model: str, count: int, emulated: Path | None) -> None:
    """Print the shares as JSON."""
    bundle = read_bundle(resolve(model))
    click.echo(json.dumps(run(Bench(emulated), bundle, folder, count), indent=1))


if __name__ == "__main__":
    main()
