"""``edgecap sign``: sign a bundle, so that a device can demand who made it."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap sign --new-key maker.pem
  edgecap sign my.edgecap --key maker.pem
  edgecap caption photo.jpg --model my.edgecap --require-signature maker.pem.pub
""",
)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="PEM file of the private key.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="The signed bundle [BUNDLE itself]."
)
@click.option(
    "--new-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Make an ed25519 key: FILE, to be kept secret, and FILE.pub for the devices.",
)
def command(
    bundle: Path | None, key: Path | None, output: Path | None, new_key: Path | None
) -> None:
    """Sign BUNDLE with an ed25519 key. An edit after that is found out when the bundle is read."""
    from edgecap.runtime.bundle import read_bundle, write_bundle
    from edgecap.runtime.errors import OptionsError
    from edgecap.runtime.signature import new_key as make_key

    if new_key is not None:
        for path in make_key(new_key):
            click.echo(path)
        key = key or new_key
    if bundle is None:
        if new_key is None:
            raise OptionsError("nothing to sign; give a bundle and --key, or --new-key FILE")
        return
    if key is None:
        raise OptionsError(f"{bundle} needs --key with a PEM file; --new-key FILE makes one")
    read = read_bundle(bundle)
    place = output or bundle
    write_bundle(place, read.manifest, read.files, key=key)
    click.echo(place)
