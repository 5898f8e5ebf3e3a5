"""Virtual environments of the peers, each with what requirements/NAME.txt lists.

    python benchmarks/peers/environments.py build/peers

Each sees the packages of the environment that runs this after its own, so that torch and this
project are there once.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import click

REQUIREMENTS = Path(__file__).parent / "requirements"


def make(name: str, folder: Path) -> Path:
    """The environment of peer ``name`` below ``folder``; its interpreter."""
    place = folder / name
    python = place / "bin" / "python"
    done = place / ".requirements"
    wanted = (REQUIREMENTS / f"{name}.txt").read_text()
    if done.is_file() and done.read_text() == wanted:
        return python
    venv.create(place, with_pip=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    ours = sysconfig.get_paths()["purelib"]
    link = place / "lib" / version / "site-packages" / "ours.pth"
    link.write_text(f"import site; site.addsitedir({ours!r})\n")
    listed = str(REQUIREMENTS / f"{name}.txt")
    subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", listed], check=True)
    done.write_text(wanted)
    return python


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1)
def main(folder: Path, names: tuple[str, ...]) -> None:
    """Make the environments NAMES below FOLDER; all by default."""
    for name in names or sorted(path.stem for path in REQUIREMENTS.glob("*.txt")):
        click.echo(f"{name}: {make(name, folder)}")


if __name__ == "__main__":
    main()
