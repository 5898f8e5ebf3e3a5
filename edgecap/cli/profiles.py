"""``edgecap profiles``: presets of streams, to be read, copied and checked."""

from __future__ import annotations

import click

from edgecap.cli import options as shared


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap profiles
  edgecap profiles show driving > mine.yaml
  edgecap profiles check mine.yaml
  edgecap stream /dev/video0 --profile mine.yaml
""",
)
@click.pass_context
def command(context: click.Context) -> None:
    """List the profiles of `edgecap stream --profile`."""
    if context.invoked_subcommand is not None:
        return
    from edgecap.runtime.streams.profiles import load_profile, names

    for name in names():
        click.echo(f"{name:12} {load_profile(name).about}")


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a profile as YAML, to be read or copied."""
    from edgecap.runtime.streams.profiles import source_of

    click.echo(source_of(name), nl=False)


@command.command()
@click.argument("profile")
@shared.MODEL
def check(profile: str, model: str) -> None:
    """Check PROFILE (a name or a file), and which of its words the model can say.

    A word that the model's tokenizer does not have can never be in a caption: an alert on it would
    never come.
    """
    import edgecap
    from edgecap.runtime.streams.profiles import load_profile

    loaded = load_profile(profile)
    captioner = edgecap.load(model)
    unknown = captioner.manifest.tokenizer.unk
    for group, words in loaded.vocabulary().items():
        never = sorted(
            word
            for word in words
            if not (ids := captioner.tokenizer.encode(word)) or unknown in ids
        )
        line = f"{group}: {len(words) - len(never)} of {len(words)} words can be said"
        click.echo(f"{line}; never: {', '.join(never)}" if never else line)
    click.echo(f"{profile}: a valid profile for {captioner.name}")
