"""``edgecap explain``: a figure of what in a photograph each word depends on."""

from __future__ import annotations

from pathlib import Path

import click

from edgecap.cli import options as shared


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap explain photo.jpg -o explain.png
  edgecap explain photo.jpg -o explain.pdf --model my.edgecap --side 14
  edgecap explain photo.jpg -o explain.png --checkpoint runs/default/best
""",
)
@click.argument("photo", type=click.Path())
@click.option("--output", "-o", required=True, type=click.Path(), help="PNG, JPEG, PDF or SVG.")
@click.option(
    "--model", help="Name or path of a bundle, or a checkpoint folder.  [default: default]"
)
@click.option("--checkpoint", type=click.Path(), help="Folder of `edgecap train`: show attention.")
@shared.BEAMS
@click.option("--side", type=int, default=8, show_default=True, help="Bundles: places a side.")
@shared.THREADS
def command(
    photo: str,
    output: str,
    model: str | None,
    checkpoint: str | None,
    beams: int | None,
    side: int,
    threads: int | None,
) -> None:
    """Caption PHOTO and draw, for each word, what in the photograph it depends on.

    For a bundle: one place of the photograph after another is covered, and drawn is by how much the
    word's log-probability falls. For a checkpoint: the attention of the model itself, in families
    that have one; this needs torch.
    """
    import matplotlib  # noqa: F401  (told before any work is done, with the extra that has it)

    from edgecap.runtime.errors import OptionsError
    from edgecap.training.explain import check_output

    if model is not None and checkpoint is not None:
        raise OptionsError("--model and --checkpoint are both given; give one of them")
    if model is not None and (Path(model) / "model.json").is_file():
        checkpoint = model
    out = check_output(output)
    if checkpoint is not None:
        text = _attention(photo, Path(checkpoint), out, beams, threads)
    else:
        text = _occlusion(photo, model or "default", out, beams, side, threads)
    click.echo(f"{out}: {text}")


def _attention(
    photo: str, checkpoint: Path, out: Path, beams: int | None, threads: int | None
) -> str:
    from edgecap.runtime.engines.threads import thread_count
    from edgecap.runtime.errors import DataError
    from edgecap.runtime.image import load_image
    from edgecap.training.explain import attention_maps, draw_maps

    pixels = load_image(photo)
    if not (checkpoint / "model.json").is_file():
        raise DataError(
            f"{checkpoint} is no checkpoint: it has no model.json; give the folder "
            "that `edgecap train` printed"
        )
    import torch

    from edgecap.training.checkpoint import load_model

    torch.set_num_threads(thread_count(threads))
    model, tokenizer_json, _ = load_model(checkpoint)
    chosen = {} if beams is None else {"beams": beams}
    maps = attention_maps(model, tokenizer_json, pixels, **chosen)
    where = "/".join(checkpoint.resolve().parts[-2:])
    title = f"Attention of the {model.family} in checkpoint {where}"
    draw_maps(pixels, maps, out, title, "share of the attention")
    return " ".join(word for word, _ in maps)


def _occlusion(
    photo: str, model: str, out: Path, beams: int | None, side: int, threads: int | None
) -> str:
    import edgecap
    from edgecap.occlusion import OcclusionOptions, occlusion_maps
    from edgecap.runtime.image import load_image
    from edgecap.training.explain import draw_maps

    options = OcclusionOptions(side=side)
    captioner = edgecap.load(model, threads=threads)
    decoding = captioner.options(beams=beams)
    pixels = load_image(photo)
    maps = occlusion_maps(captioner, pixels, channels="RGB", options=options, decoding=decoding)
    title = f"Occlusion: what each word of bundle {captioner.name!r} depends on"
    draw_maps(pixels, maps, out, title, "fall of the word's log-probability\nwhen covered, nats")
    return " ".join(word for word, _ in maps)
