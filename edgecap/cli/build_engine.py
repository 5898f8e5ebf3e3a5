"""``edgecap build-engine``: TensorRT engines of a bundle, kept for later."""

from __future__ import annotations

import re
from pathlib import Path

import click


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, written as 512MiB or 1GB."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        import humanfriendly

        if isinstance(value, int):
            return value
        try:
            return int(humanfriendly.parse_size(str(value)))
        except humanfriendly.InvalidSize:
            self.fail(f"{value!r} is no size; give one such as 512MiB or 1GB", param, ctx)


class Span(click.ParamType):  # type: ignore[type-arg]
    """``1..8``, or one number that is both ends."""

    name = "span"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        found = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?", str(value))
        if found is None:
            self.fail(f"{value!r} is no span; give one such as 1..8, or a number", param, ctx)
        return int(found[1]), int(found[2] or found[1])


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap build-engine default
  edgecap build-engine default --precision int8 --workspace 256MiB --low-memory
  edgecap build-engine my.edgecap --target sm_89 --batch 1 --beams 1..4 -o engines
""",
)
@click.argument("model", default="default")
@click.option(
    "--precision",
    type=click.Choice(["fp16", "int8", "fp32"]),
    default="fp16",
    show_default=True,
    help="int8: the encoder's quantised layers; the rest is fp16.",
)
@click.option(
    "--workspace",
    type=Size(),
    default="512MiB",
    show_default=True,
    help="Most GPU memory that a layer may use.",
)
@click.option("--batch", type=Span(), default="1..8", show_default=True, help="Pictures at once.")
@click.option("--beams", type=Span(), help="Beams [1..4, or to what the model asks for].")
@click.option("--target", metavar="SM", help="Compute capability, such as sm_87 [this GPU's].")
@click.option("--level", type=click.IntRange(0, 5), help="0 builds quickly, 5 runs fastest.")
@click.option("--low-memory", is_flag=True, help="For boards with 4 to 8 GB: slower, smaller.")
@click.option("--version-compatible", is_flag=True, help="Later TensorRT releases load it, too.")
@click.option("--rtx", is_flag=True, help="With TensorRT for RTX, even where TensorRT is.")
@click.option("--again", is_flag=True, help="Build even where a fitting engine is there.")
@click.option("--output", "-o", type=click.Path(), help="Folder of engines [the cache folder].")
def command(
    model: str,
    precision: str,
    workspace: int,
    batch: tuple[int, int],
    beams: tuple[int, int] | None,
    target: str | None,
    level: int | None,
    low_memory: bool,
    version_compatible: bool,
    rtx: bool,
    again: bool,
    output: str | None,
) -> None:
    """Build TensorRT engines of MODEL (a name or the path of a bundle) and print their paths.

    Engines that fit are kept: the same command twice builds once.
    """
    from edgecap.export.tensorrt.build import BuildOptions, ensure_engines, usual_beams
    from edgecap.models import resolve
    from edgecap.runtime.bundle import read_bundle
    from edgecap.runtime.engines.cuda_memory import find_device
    from edgecap.runtime.engines.tensorrt_library import load_library
    from edgecap.runtime.engines.tensorrt_plan import default_folder

    bundle = read_bundle(resolve(model))
    options = BuildOptions(
        precision=precision,
        workspace=workspace,
        batch=batch,
        beams=beams or usual_beams(bundle),
        target=target,
        level=level,
        low_memory=low_memory,
        version_compatible=version_compatible,
    )
    library = load_library("tensorrt_rtx" if rtx else None)
    made = ensure_engines(
        bundle,
        library,
        find_device(),
        Path(output) if output else default_folder(),
        options,
        again=again,
        say=lambda line: click.echo(line, err=True),
    )
    for role, path in made.paths.items():
        sidecar = made.sidecars[role]
        state = f"built in {sidecar.build['seconds']} s" if role in made.built else "was there"
        click.echo(f"{path} ({sidecar.plan_bytes / 1e6:.1f} MB, {state})")
