"""``edgecap score``: score captions that are already in a file, whoever wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgecap.cli import scores as shared


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap score captions.json references.json
  edgecap score results.json captions_val2014.json --subset --json
  edgecap score captions.json references.json --metrics METEOR,CIDEr-D --intervals
""",
)
@click.argument("hypotheses", type=click.Path(path_type=Path))
@click.argument("references", type=click.Path(path_type=Path))
@click.option(
    "--subset", is_flag=True, help="Score only the images that have a caption in HYPOTHESES."
)
@shared.options
def command(
    hypotheses: Path,
    references: Path,
    subset: bool,
    metrics: str | None,
    intervals: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Compare the captions in HYPOTHESES with those by people in REFERENCES.

    HYPOTHESES is {"image": "caption"} or a COCO result file; REFERENCES is {"image": ["caption",
    ...]} or a COCO annotation file. Scores are 0 to 1, CIDEr and CIDEr-D 0 to 10.
    """
    from edgecap.training.metrics import read_hypotheses, read_references

    shared.check_output(output)
    candidates, people = read_hypotheses(hypotheses), read_references(references)
    if subset:
        people = {image: texts for image, texts in people.items() if image in candidates}
    found = shared.score(candidates, people, metrics)
    report: dict[str, Any] = {"images": len(found.ids), **found.corpus}
    if intervals:
        shared.add_intervals(report, found)
    if output is not None:
        shared.write_rows(
            output,
            [
                {
                    "image": image,
                    "caption": candidates[image],
                    **{name: values[image] for name, values in found.per_image.items()},
                }
                for image in found.ids
            ],
        )
    shared.show(report, as_json)
