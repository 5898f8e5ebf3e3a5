"""``edgecap bench project``: what a caption would take on a device that is not here."""

from __future__ import annotations

import json

import click

from edgecap.bench.devices import DEVICES, find_device

KEYS = ", ".join(device.key for device in DEVICES)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap bench project default --device orin-nano-super
  edgecap bench project my.edgecap --device rpi5 --beams 1 --json
""",
)
@click.argument("model", default="default")
@click.option("--device", required=True, metavar="NAME", help=f"One of {KEYS}.")
@click.option("--beams", default=4, show_default=True, help="Beam width.")
@click.option("--tokens", default=12, show_default=True, help="Decoder steps of a caption.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model: str, device: str, beams: int, tokens: int, as_json: bool) -> None:
    """Project the latency of MODEL, a name or a .edgecap file, on another device.

    Roofline of the device as its maker states it, launches and host. Nothing is measured; how far
    the method was off where it was checked stands beside the figures.
    """
    found = find_device(device)
    from edgecap.bench.project import project
    from edgecap.models import resolve
    from edgecap.runtime.bundle import read_bundle

    result = project(read_bundle(resolve(model)), found, beams=beams, tokens=tokens)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    title = f"Projection, not a measurement: {result.model} on {found.name}"
    table = Table("stage", "floor, ms", "projected, ms", "how", title=title, title_justify="left")
    for stage in result.stages:
        times = f"{stage.runs} runs, " if stage.runs > 1 else ""
        table.add_row(
            stage.name, f"{stage.floor_ms:.2f}", f"{stage.projected_ms:.1f}", times + stage.by
        )
    table.add_row("a caption", f"{result.floor_ms:.2f}", f"{result.projected_ms:.1f}", "")
    console = Console()
    console.print(table)
    click.echo(f"{result.precision}, {beams} beams, {tokens} tokens. {found.name}: {found.source}.")
    click.echo(f"Error: {result.error}.")
