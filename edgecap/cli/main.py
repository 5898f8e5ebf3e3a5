"""The command ``edgecap``: finds the subcommand's file, runs it, and turns errors into one line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, cast

import click

from edgecap.runtime.errors import EdgeCapError, MissingExtraError

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, what a shell expects after Ctrl-C

# command -> (what it does, the extra it needs); its module is imported when it is run.
COMMANDS: dict[str, tuple[str, str | None]] = {
    "caption": ("Caption photographs.", None),
    "index": ("Caption a folder of photographs to search it.", None),
    "search": ("Find photographs by words of their captions.", None),
    "stream": ("Caption a camera, a video or a folder of pictures.", "stream"),
    "bag": ("Caption the images of a ROS 2 bag.", "ros"),
    "serve": ("Caption over HTTP, with a console for browsers.", "serve"),
    "profiles": ("List, show and check presets of streams.", "stream"),
    "subtitle": ("Caption the scenes of a film as subtitles.", "stream"),
    "info": ("Show what a model is and what it scores.", None),
    "explain": ("Draw what in a photograph each word depends on.", "plot"),
    "eval": ("Score a model on a data set.", None),
    "score": ("Score captions in a file.", None),
    "data": ("Look at data sets before training.", None),
    "train": ("Train a model.", "train"),
    "average": ("Average checkpoints of one model.", "train"),
    "quantize": ("Fine-tune a model for int8.", "export"),
    "export": ("Make a bundle of any captioner.", "export"),
    "build-engine": ("Build TensorRT engines of a model.", "gpu"),
    "bench": ("Measure latency from camera to caption; compare records.", "bench"),
    "doctor": ("Say what this machine can run, and try it.", None),
    "sign": ("Sign a bundle.", "sign"),
}

EXAMPLES = """\b
Examples:
  edgecap caption photo.jpg
  edgecap caption --json --beams 6 holiday/*.jpg
  edgecap stream /dev/video0
  edgecap info default
  edgecap eval default --data flickr8k:data/flickr8k --split test
"""


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only when that command is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(f"edgecap.cli.{cmd_name.replace('-', '_')}")
        except ModuleNotFoundError as error:
            raise _missing(cmd_name, error) from error
        return cast(click.Command, module.command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (text, _) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise _missing(ctx.invoked_subcommand or "", error) from error


def _missing(command: str, error: ModuleNotFoundError) -> Exception:
    """What to say of a module that is not there: the extra to install, if it is not our own."""
    extra = COMMANDS.get(command, ("", None))[1]
    package = (error.name or "").partition(".")[0]
    if extra is None or package in ("", "edgecap"):
        return error
    if extra == "plot" and package != "matplotlib":
        extra = "train"  # a figure of a checkpoint runs the model in torch
    return MissingExtraError(
        f"`edgecap {command}` needs the package {package!r}, which the base install leaves out: "
        f"pip install 'edgecap[{extra}]'"
    )


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import edgecap

        click.echo(f"edgecap {edgecap.__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Captions of photographs and camera streams, made on this computer.

    Exit code 0: done; 2: bad input, said in one line on standard error; 130: interrupted. With
    EDGECAP_DEBUG=1 errors come with a traceback.
    """


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; quietly, with 1, when the reader of its output goes away."""
    try:
        result = cli.main(arguments, prog_name="edgecap", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except EdgeCapError as error:
        if os.environ.get("EDGECAP_DEBUG") == "1":
            raise
        fail(str(error))
        sys.exit(BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    sys.exit(result if isinstance(result, int) else 0)


def fail(message: str) -> None:
    """Say on standard error what went wrong, in one line."""
    click.echo(f"edgecap: error: {' '.join(message.split())}", err=True)
