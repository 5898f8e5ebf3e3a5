"""``edgecap serve``: captions over HTTP, with a console for browsers."""

from __future__ import annotations

import os
import signal

import click

from edgecap.cli import options as shared
from edgecap.cli.main import INTERRUPTED
from edgecap.cli.stream import parse_size, seconds


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap serve
  edgecap serve --source /dev/video0 --profile assistive
  edgecap serve --source door=rtsp://192.168.1.20/main --source yard=rtsp://192.168.1.21/main
  edgecap serve --source clip.mp4 --host 0.0.0.0 --token-file token.txt
  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8765/v1/caption
""",
)
@click.argument("model", default="default")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="[NAME=]SOURCE",
    help="A camera, video or folder, as in `edgecap stream`. May be given more than once.",
)
@click.option("--profile", metavar="NAME", help="See `edgecap profiles`; may be switched later.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=8765, show_default=True, help="0: any that is free.")
@click.option(
    "--token",
    metavar="TOKEN",
    help="What clients must send; needed beyond this machine. Others can list it: better a file.",
)
@click.option(
    "--token-file", type=click.Path(), metavar="FILE", help="File that holds it [EDGECAP_TOKEN]."
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name that browsers may call this server by, as behind a proxy.",
)
@click.option("--beams", type=int, help="Beam width for cameras; the model's own if not given.")
@click.option(
    "--threads",
    type=int,
    help="CPU threads; by default the cores, one less with cameras, at most 4.",
)
@shared.ENGINE
@shared.REQUIRE_SIGNATURE
@click.option(
    "--loop/--no-loop", default=True, help="Begin a video or folder again at its end [loop]."
)
@click.option("--gate", type=click.Choice(["auto", "none", "thumbnail"]), help="[auto]")
@click.option("--min-interval", type=float, help="Least seconds between captions.")
@click.option("--deadline-ms", type=float, help="End decoding so long after a frame's capture.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="Size asked of cameras, such as 1280x720.")
@click.option("--frame-rate", type=float, help="Frames per second of cameras, videos, folders.")
@click.option("--queue", type=int, default=64, show_default=True, help="Pictures that may wait.")
@click.option(
    "--batch", type=int, default=1, show_default=True, help="Pictures captioned together."
)
@click.option(
    "--max-bytes", type=int, default=20_000_000, show_default=True, help="Of a posted picture."
)
@click.option(
    "--max-pixels", type=int, default=40_000_000, show_default=True, help="Of a posted picture."
)
@click.option(
    "--rate", default="500/second", show_default=True, help="Requests that one client may send."
)
@click.option(
    "--connections", type=int, default=256, show_default=True, help="Connections at once."
)
@click.option(
    "--header-timeout",
    type=float,
    default=10.0,
    show_default=True,
    help="Seconds that a request's headers may take to come.",
)
@click.option(
    "--body-timeout",
    type=float,
    default=30.0,
    show_default=True,
    help="The same for its picture.",
)
@click.option(
    "--pictures/--no-pictures",
    default=True,
    help="Show pictures of cameras, or captions alone [pictures].",
)
@click.option(
    "--stuck",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds without a frame after which /healthz fails.",
)
@click.pass_context
def command(
    context: click.Context,
    model: str,
    sources: tuple[str, ...],
    profile: str | None,
    host: str,
    port: int,
    token: str | None,
    token_file: str | None,
    hosts: tuple[str, ...],
    beams: int | None,
    threads: int | None,
    engine: str | None,
    require_signature: str | None,
    loop: bool,
    gate: str | None,
    min_interval: float | None,
    deadline_ms: float | None,
    size: str | None,
    frame_rate: float | None,
    queue: int,
    batch: int,
    max_bytes: int,
    max_pixels: int,
    rate: str,
    connections: int,
    header_timeout: float,
    body_timeout: float,
    pictures: bool,
    stuck: float,
) -> None:
    """Caption pictures that are posted, and cameras; a console for browsers at /.

    MODEL is the name or path of a bundle. Only this machine can reach the server unless --host says
    otherwise, which needs a token. Addresses and answers: docs/serve.md and /openapi.json.

    Ends on Ctrl-C (exit code 130) and SIGTERM (0) after the answers in the making. Exit code 2: a
    bad option, a port in use, a source or model that cannot be used.
    """
    # One clear line on an error instead of the reader's own messages; a value set outside wins.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import asyncio

    import edgecap
    from edgecap.runtime.streams.options import stream_threads
    from edgecap.serve.hub import Hub
    from edgecap.serve.live import Live, parse_sources
    from edgecap.serve.options import ServeOptions, find_token
    from edgecap.serve.server import Server

    options = ServeOptions(
        host=host,
        port=port,
        token=find_token(token, token_file),
        hosts=hosts,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        queue=queue,
        batch=batch,
        rate=rate,
        connections=connections,
        header_timeout=header_timeout,
        body_timeout=body_timeout,
        pictures=pictures,
        stuck=stuck,
    )
    width, height = parse_size(size)
    captioner = edgecap.load(
        model,
        # A core is left to the cameras.
        threads=stream_threads(threads) if sources else threads,
        engine=engine,
        require_signature=require_signature,
    )
    hub = Hub(options.history, options.viewers)
    live = Live(
        parse_sources(sources),
        captioner,
        hub,
        sources={
            "loop": loop,
            "reconnects": 1_000_000_000,
            "wait": True,
            "width": width,
            "height": height,
            "rate": frame_rate,
        },
        profile=profile,
        stream={
            "gate": gate,
            "min_interval": min_interval,
            "deadline": seconds("--deadline-ms", deadline_ms),
            "stuck": stuck,
        },
        decoding={"beams": beams},
        pictures=pictures,
    )

    def ready(address: str) -> None:
        click.echo(f"edgecap: {captioner.name} answers at {address}", err=True)

    server = Server(options, captioner, hub, live, ready)
    try:
        number = asyncio.run(server.run())
    finally:
        live.stop()
    if number == signal.SIGINT:
        context.exit(INTERRUPTED)
