"""All GPU benchmarks into one record; without a GPU the record says that nothing was run.

python benchmarks/gpu/run.py --pictures FOLDER --out benchmarks/records/gpu.json
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import beam_step
import captions
import click
import host_waits
import same_captions
from machine import Bench, kernels_hash
from record import command, write_atomically

from edgecap.models import resolve
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.errors import EdgeCapError


@click.command()
@click.option("--pictures", type=click.Path(exists=True, path_type=Path), help="500 photographs.")
@click.option("--rounds", default=50, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(pictures: Path | None, rounds: int, out: Path | None) -> None:
    """Run all of it, or say why not."""
    record: dict[str, Any] = {
        "command": command("benchmarks/gpu/run.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "kernels_sha256": kernels_hash(),
    }
    try:
        bench = Bench()
    except EdgeCapError as error:
        record |= {"status": "not run", "why": str(error)}
    else:
        record |= {"status": "run", "machine": bench.facts(), **everything(bench, pictures, rounds)}
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def everything(bench: Bench, pictures: Path | None, rounds: int) -> dict[str, Any]:
    """Each benchmark's figures; one that fails says so, and the others go on."""
    bundle = read_bundle(resolve("default"))
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "beam_step": lambda: beam_step.run(bench),
        "host_waits": lambda: host_waits.run(bench, bundle),
        "default_bundle": lambda: captions.default_bundle(bench, bundle, rounds),
        "captions_30m": lambda: captions.measure(bench, "30m", captions.CASES, rounds),
        "captions_gpt2": lambda: captions.measure(bench, "gpt2", captions.CASES, rounds),
    }
    if pictures is not None:
        parts["same_captions"] = lambda: same_captions.run(bench, bundle, pictures, 500)
    found: dict[str, Any] = {}
    for name, part in parts.items():
        click.echo(f"{name} ...", err=True)
        try:
            found[name] = part()
        except (EdgeCapError, RuntimeError, ImportError) as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
    verdicts = {
        name: part.get("verdict", part.get("failed", part.get("reached", "measured")))
        for name, part in found.items()
    }
    return {**found, "verdicts": verdicts}


if __name__ == "__main__":
    main()
