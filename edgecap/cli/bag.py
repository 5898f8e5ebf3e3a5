"""``edgecap bag``: the images of a ROS 2 bag in, captions in a bag out."""

from __future__ import annotations

from pathlib import Path

import click

from edgecap.cli import options as shared
from edgecap.cli.main import INTERRUPTED


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap bag drive.mcap -o captions.mcap
  edgecap bag rosbag2_2026_03_01/ -o captions.mcap --topic /camera/image_raw
  edgecap bag drive.mcap -o captions.mcap --gate none --beams 1
  edgecap bag drive.mcap -o captions.mcap --profile driving
""",
)
@click.argument("bag", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "--out",
    "-o",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="MCAP file for the captions.",
)
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="TOPIC",
    help="Topic of images; may be given more than once. By default all that carry images.",
)
@shared.MODEL
@shared.BEAMS
@click.option(
    "--gate",
    type=click.Choice(["auto", "none", "thumbnail"]),
    default="auto",
    show_default=True,
    help="Skip images in which nothing changed; none: caption every one.",
)
@click.option("--min-interval", type=float, help="Least seconds between captions of a topic.")
@click.option(
    "--max-age", type=float, help="Caption an unchanged scene again after so many seconds."
)
@click.option("--max-captions", type=int, help="End after so many captions, all topics together.")
@shared.THREADS
@shared.ENGINE
@shared.PROFILE
@click.pass_context
def command(
    context: click.Context,
    bag: Path,
    out: Path,
    topics: tuple[str, ...],
    model: str,
    beams: int | None,
    gate: str,
    min_interval: float | None,
    max_age: float | None,
    max_captions: int | None,
    threads: int | None,
    engine: str | None,
    profile: str | None,
) -> None:
    """Caption the images in BAG and record the captions in an MCAP file.

    BAG is an .mcap file or a folder that `ros2 bag record -s mcap` made. For each topic of
    sensor_msgs/Image or CompressedImage the file gets TOPIC/caption (edgecap_msgs/Caption) and
    TOPIC/caption_text (std_msgs/String), with the stamps and frame ids of the images. No image is
    left out for want of time. A bag that breaks off is captioned up to there.
    """
    import contextlib
    import signal

    import edgecap
    from edgecap.cli.signals import stopping_on_signals
    from edgecap.runtime.errors import SinkError, SourceError
    from edgecap.runtime.messages.bags import Bag
    from edgecap.runtime.streams.cameras import Cameras, Feed
    from edgecap.runtime.streams.narrator import Narrator, preparation
    from edgecap.runtime.streams.options import SourceOptions
    from edgecap.runtime.streams.profiles import load_profile
    from edgecap.runtime.streams.sinks.mcap import CaptionBag, McapSink
    from edgecap.runtime.streams.sources.mcap import McapBag

    preset = load_profile(profile)
    options = preset.stream_options(
        gate=None if gate == "auto" else gate,
        min_interval=min_interval,
        max_age=max_age,
        max_captions=max_captions,
    )
    if not bag.exists():
        raise SourceError(f"{bag} does not exist; give an .mcap file or a folder of a bag")
    if out.exists() and bag.is_file() and out.samefile(bag):
        raise SinkError(f"{out} is the bag that is read; give another file for the captions")
    opened = Bag(bag)
    wanted = [opened.choose(topic) for topic in topics] or opened.image_topics
    wanted = list(dict.fromkeys(wanted)) or [opened.choose(None)]  # which says what is there
    with contextlib.ExitStack() as stack:
        sources = []
        for topic in wanted:
            source = McapBag(bag, SourceOptions(realtime=False), topic)
            stack.callback(source.close)
            sources.append(source)
        captioner = edgecap.load(model, threads=threads, engine=engine)
        decoding = {"beams": None, **preset.decoding_options(beams=beams)}
        captioner.options(**decoding)  # a bad one is told before the first image
        recorder = CaptionBag(out)
        stack.callback(recorder.close)
        name = getattr(captioner, "name", "")
        feeds = [
            Feed(
                source,
                [McapSink(recorder, topic=source.topic, model=name, owned=False)],
                prepare=None if profile is None else preparation(preset, source),
                tell=None if profile is None else Narrator(preset),
            )
            for source in sources
        ]
        cameras = Cameras(feeds, captioner, options=options, decoding=decoding)
        try:
            with stopping_on_signals(cameras.stop) as seen:
                reports = cameras.run()
        except KeyboardInterrupt:
            context.exit(INTERRUPTED)
    for source, report in zip(sources, reports, strict=True):
        click.echo(f"{source.topic}: {report}", err=True)
    click.echo(f"{out}: {recorder.captions} captions")
    if signal.SIGINT in seen:
        context.exit(INTERRUPTED)
