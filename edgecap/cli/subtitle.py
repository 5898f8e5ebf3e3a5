"""``edgecap subtitle``: what a film shows, as subtitles."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from edgecap.cli import options as shared


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap subtitle film.mp4
  edgecap subtitle film.mp4 -o film.srt --longest 20
  edgecap subtitle film.mp4 --unsure skip --beams 1
""",
)
@click.argument("video", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "--out",
    "-o",
    "out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Subtitle file: .vtt, .srt or .ass; by default the video's name with .vtt.",
)
@shared.MODEL
@shared.BEAMS
@click.option(
    "--longest",
    type=float,
    default=10.0,
    show_default=True,
    help="Look again after so many seconds where no cut comes.",
)
@click.option(
    "--unsure",
    type=click.Choice(["mark", "skip"]),
    default="mark",
    show_default=True,
    help='Captions under the confidence floor: with "(not sure)", or left out.',
)
@shared.THREADS
def command(
    video: Path,
    out: Path | None,
    model: str,
    beams: int | None,
    longest: float,
    unsure: str,
    threads: int | None,
) -> None:
    """Caption the scenes of VIDEO; write them as subtitles.

    Cuts are found first; a scene without cuts is looked at again every --longest seconds. Of three
    frames a scene the caption with the highest confidence is taken. Neighbours that say the same
    become one cue.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from rich.console import Console
    from rich.progress import track

    import edgecap
    from edgecap.runtime.streams.scenes import describe_scenes, find_scenes
    from edgecap.runtime.streams.sinks.subtitles import Subtitles, check_path

    target = check_path(out if out is not None else video.with_suffix(".vtt"))
    scenes = find_scenes(video, longest=longest)
    captioner = edgecap.load(model, threads=threads)
    captioner.options(beams=beams)  # a bad one is told before the first frame
    # Cues keep the scene's own length.
    subtitles = Subtitles(target, longest=max(scene.end for scene in scenes) if scenes else 1.0)
    told = track(
        describe_scenes(video, captioner, scenes, beams=beams),
        total=len(scenes),
        description="scenes",
        console=Console(file=sys.stderr),
        disable=not sys.stderr.isatty(),
    )
    count = 0
    for scene, caption in told:
        if caption.sure or unsure == "mark":
            count += 1
            subtitles.add(scene.start, scene.end, str(caption))
    subtitles.close()
    click.echo(f"{target}: {count} of {len(scenes)} scenes")
