"""``edgecap export``: any captioner to a bundle that is proven to say the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic", "int8-weights", "int4-weights")
TARGETS = ("onnxruntime", "tensorrt")
METHODS = ("minmax", "entropy", "percentile")


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap export nlpconnect/vit-gpt2-image-captioning -o vit-gpt2.edgecap
  edgecap export runs/mine/best -o mine.edgecap --precision int8 --images photos/
  edgecap export runs/mine/best -o mine.edgecap --precision int8 \\
      --images flickr8k:data/flickr8k=val --max-drop 0.01
  edgecap export default --single-file caption.onnx
  edgecap export runs/default/best -o default.edgecap --recipe default --data data \\
      --weights weights --test flickr8k:data/flickr8k=test
""",
)
@click.argument("source")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The bundle.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="onnxruntime",
    show_default=True,
    help="Whose spelling of int8 the graphs have.",
)
@click.option(
    "--images",
    metavar="FOLDER|NAME:FOLDER=SPLIT",
    help="Photographs to calibrate with and to be judged on; a data set brings captions, too.",
)
@click.option(
    "--count", type=click.IntRange(16), default=500, show_default=True, help="At most so many."
)
@click.option("--calibration", type=click.Choice(METHODS), default="percentile", show_default=True)
@click.option(
    "--budget",
    type=float,
    default=0.01,
    show_default=True,
    help="Error that int8 layers may add up to, as a share of the energy of the features.",
)
@click.option(
    "--layers",
    type=click.Choice(("tuned", "measured")),
    default="tuned",
    show_default=True,
    help="Which layers of a model fine-tuned for int8 are int8: those it was tuned with, or those "
    "that --budget allows.",
)
@click.option(
    "--max-drop",
    type=float,
    default=0.01,
    show_default=True,
    help="Share of CIDEr that a quantised model may lose.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    help="Longest caption of a Hugging Face captioner, in tokens [its own setting].",
)
@click.option("--single-file", type=click.Path(path_type=Path), help="One ONNX file of it all.")
@click.option("--report", type=click.Path(path_type=Path), help="HTML page [beside the bundle].")
@click.option("--recipe", help="What SOURCE was trained by: adds confidence, scores and a card.")
@click.option("--data", type=click.Path(), help="Folder that holds the recipe's data sets.")
@click.option("--weights", default="weights", type=click.Path(), help="Folder of ImageNet weights.")
@click.option("--record", type=click.Path(path_type=Path), help="Folder of the recipe's record.")
@click.option(
    "--test",
    "tests",
    multiple=True,
    metavar="NAME:FOLDER=SPLIT",
    help="Measured once, at the end; never used for choosing.",
)
@click.option(
    "--float-checkpoint",
    type=click.Path(),
    help="The model that SOURCE was fine-tuned for int8 from; its scores stand as float32.",
)
@click.option("--made-by", metavar="TEXT", help="The commands that made SOURCE, for the manifest.")
@click.option("--name", help="The model's name [of SOURCE].")
@click.option("--licence", default="", help="Of the weights [as SOURCE states it].")
@click.option("--threads", type=click.IntRange(1, 256), default=2, show_default=True)
def command(**given: Any) -> None:
    """Export SOURCE to a bundle and prove that it says the same.

    SOURCE is a folder that `edgecap train` wrote, a bundle, or a Hugging Face captioner: a folder
    or a hub id. Where a check fails, nothing is written and the exit code is 2.
    """
    from edgecap.models import bundled
    from edgecap.runtime.errors import OptionsError

    given["source"] = str(bundled().get(given["source"], given["source"]))
    if given["output"] is None and given["single_file"] is None:
        raise OptionsError("nothing to write; give -o BUNDLE, --single-file FILE, or both")
    if given["recipe"] is not None:
        _release(given)
    elif given["tests"] or given["data"] or given["float_checkpoint"]:
        raise OptionsError(
            "--data, --test and --float-checkpoint go with --recipe; give the recipe of SOURCE"
        )
    elif given["output"] is not None:
        _export(given)
    if given["single_file"] is not None:
        from edgecap.export.single_file import write_single_file
        from edgecap.runtime.bundle import read_bundle

        bundle = read_bundle(given["output"] or _bundle_only(given["source"]))
        _say(write_single_file(bundle, given["single_file"]))


def _export(given: dict[str, Any]) -> None:
    from dataclasses import replace

    from edgecap.export.gate import GateOptions
    from edgecap.export.model import ModelOptions, export_model
    from edgecap.export.photographs import read_photographs
    from edgecap.export.precision import PrecisionOptions
    from edgecap.export.sources import open_source
    from edgecap.export.static_quantization import CalibrationOptions

    out: Path = given["output"]
    options = ModelOptions(
        name=given["name"] or "",
        licence=given["licence"],
        precision=PrecisionOptions(
            given["precision"],
            given["target"],
            CalibrationOptions(given["calibration"]),
            given["budget"],
        ),
        gate=GateOptions(max_drop=given["max_drop"]),
        command=("edgecap", *sys.argv[1:]),
        threads=given["threads"],
        notice=lambda line: click.echo(line, err=True),
    )
    photographs = read_photographs(given["images"], given["count"]) if given["images"] else None
    source = open_source(given["source"], given["max_new_tokens"])
    if given["layers"] == "measured":
        source = replace(source, quantize=None)
    report = given["report"] or out.with_suffix(".report.html")
    made = export_model(source, out, photographs, options, report)
    for check in made.checks:
        click.echo(check)
    if made.converted.float_layers:
        click.echo(f"left in float: {', '.join(made.converted.float_layers)}")
    _say(out)
    click.echo(report)


def _release(given: dict[str, Any]) -> None:
    """A checkpoint with its recipe: the confidence is fitted, scores measured, a card written."""
    from datetime import date

    from edgecap.export.bundle import ExportOptions
    from edgecap.export.gate import GateOptions
    from edgecap.export.release import ReleaseOptions, release
    from edgecap.runtime.errors import DataError, OptionsError
    from edgecap.runtime.manifest import DecodingDefaults
    from edgecap.training.recipe import read_recipe
    from edgecap.training.validate import SUPPRESSED

    recipe, out, data = given["recipe"], given["output"], given["data"]
    if out is None or data is None:
        raise OptionsError("--recipe needs -o BUNDLE and --data FOLDER")
    float_checkpoint = given["float_checkpoint"]
    for place in (given["source"], float_checkpoint or given["source"]):
        if not (Path(place) / "model.json").is_file():
            raise DataError(
                f"{place} is no checkpoint: it has no model.json; give the folder that "
                "`edgecap train` or `edgecap quantize` printed"
            )
    plan = read_recipe(recipe, data, given["weights"])
    options = ExportOptions(
        name=given["name"] or "default",
        decoding=DecodingDefaults(**plan.decoding, suppress_tokens=SUPPRESSED),
        licence=plan.licence,
        training_data=tuple(plan.training_data),
        provenance={
            "command": given["made_by"]
            or f"edgecap train {recipe} --data DATA --weights WEIGHTS --output RUN",
            "seed": str(plan.options.seed),
            "date": date.today().isoformat(),
        },
        budget=given["budget"] if given["layers"] == "measured" else 0.0,
    )
    made = release(
        Path(given["source"]),
        plan,
        out,
        given["record"] or out.parent / f"{out.stem}-record",
        ReleaseOptions(
            options,
            tuple(_split(test) for test in given["tests"]),
            threads=given["threads"],
            about=plan.about,
            float_checkpoint=Path(float_checkpoint) if float_checkpoint else None,
            gate=GateOptions(max_drop=given["max_drop"]),
        ),
    )
    for check in made.checks:
        click.echo(check)
    _say(made.bundle)
    _say(made.float_bundle)


def _split(test: str) -> Any:
    from edgecap.runtime.errors import OptionsError
    from edgecap.training.corpus import SplitSpec

    place, equals, split = test.rpartition("=")
    if not equals:
        raise OptionsError(f"--test is {test!r}; give NAME:FOLDER=SPLIT")
    return SplitSpec(place, split)


def _bundle_only(source: str) -> Path:
    from edgecap.runtime.errors import OptionsError

    path = Path(source)
    if path.suffix != ".edgecap":
        raise OptionsError(f"{source} is no bundle; --single-file alone needs one, or give -o, too")
    return path


def _say(path: Path) -> None:
    click.echo(f"{path} {path.stat().st_size / 1e6:.2f} MB")
