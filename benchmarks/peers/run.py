"""Peers side by side: same weights, pictures, beams and lengths, in turn on one machine.

    python benchmarks/peers/run.py vit-gpt2 --models build/peers --photographs FOLDER \\
        --out benchmarks/records/peers_vit_gpt2.json

Every peer is a process of its own, in its own environment where its packages clash with ours; one
works while the others wait. A round asks each for the same picture, so that a change of the
machine's speed hits all of them. Nothing is timed before the tokens were compared with those of
transformers, for the default model those of its own PyTorch: a float32 peer that says something
else is not timed, and others say how many captions are the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1]))
from entries import PEERS, Entry, chosen, reference
from record import command, machine, spread, write_atomically

HERE = Path(__file__).parent
ENOUGH = 100  # rounds: with fewer a 99th percentile says little more than the largest


class Process:
    """One peer at work."""

    def __init__(self, entry: Entry, model: Path, environments: Path, threads: int) -> None:
        self.entry = entry
        python = sys.executable
        if entry.environment:
            python = str(environments / entry.environment / "bin/python")
        where = model.with_name(model.name + entry.model)
        words = [python, str(HERE / entry.script), str(where), "--threads", str(threads)]
        words += ["--variant", entry.variant] if entry.variant else []
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        self._child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self.loaded = self._read()

    def ask(self, picture: Path, beams: int, tokens: int, side: int = 0) -> dict[str, Any]:
        assert self._child.stdin is not None
        question = {"picture": str(picture), "beams": beams, "tokens": tokens, "side": side}
        self._child.stdin.write(json.dumps(question) + "\n")
        self._child.stdin.flush()
        return self._read()

    def close(self) -> None:
        self._child.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            self._log.seek(0)
            last = self._log.read().decode(errors="replace").strip().splitlines()
            return {"error": (last[-1] if last else "ended without a word")[:400]}
        answer: dict[str, Any] = json.loads(line)
        return answer


@click.command()
@click.argument("model", type=click.Choice([*PEERS]))
@click.option("--models", type=click.Path(path_type=Path), default=Path("build/peers"))
@click.option("--environments", type=click.Path(path_type=Path), default=Path("build/peers"))
@click.option("--photographs", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--pictures", default=4, show_default=True)
@click.option("--beams", multiple=True, type=int, default=(4, 1), show_default=True)
@click.option("--tokens", default=16, show_default=True)
@click.option("--rounds", default=12, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--second", is_flag=True, help="Those that do not fit into memory with the others.")
@click.option("--peers", help="Names with ; between; all of the run by default.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    model: str,
    models: Path,
    environments: Path,
    photographs: Path,
    pictures: int,
    beams: tuple[int, ...],
    tokens: int,
    rounds: int,
    threads: int,
    second: bool,
    peers: str | None,
    out: Path | None,
) -> None:
    """Time MODEL, a folder that models.py wrote below --models."""
    run = chosen(model, second=second, names=peers)
    side = _side(models / model)
    whole = model == "default"  # its peers see this project's resizing
    with tempfile.TemporaryDirectory() as folder:
        files = _pictures(photographs, pictures, 0 if whole else side, Path(folder))
        running = [
            Process(entry, models / model, environments, threads) for entry in track(run, "loading")
        ]
        record = {
            "command": command("benchmarks/peers/run.py"),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "model": model,
            "weights": "trained" if whole else "random: latency does not depend on them",
            "reference": reference(model),
            "tokens": tokens,
            "threads": threads,
            "pictures": len(files),
            "rounds": rounds,
            "measured": ("photograph" if whole else "resized uint8 pixels")
            + " to token ids, milliseconds",
            "p99": "as measured" if rounds >= ENOUGH else f"of {rounds} rounds: the largest",
            "loaded": {process.entry.name: process.loaded for process in running},
        }
        try:
            asked = Asked(reference(model), files, tokens, rounds, side if whole else 0)
            for k in beams:  # written each time: what was measured stays, whatever comes next
                record[f"beams_{k}"] = compare(running, asked, k)
                if out is not None:
                    write_atomically(out, json.dumps(record, indent=1) + "\n")
        finally:
            for process in running:
                process.close()
    click.echo(json.dumps(record, indent=1))


@dataclass(frozen=True)
class Asked:
    """What every peer is asked for.

    right : name of the peer whose tokens are right
    side : what photographs are resized to inside the time; 0 where they are resized already
    """

    right: str
    files: list[Path]
    tokens: int
    rounds: int
    side: int = 0


class Asks(Protocol):
    """What ``compare`` needs of a process."""

    entry: Entry
    loaded: dict[str, Any]

    def ask(self, picture: Path, beams: int, tokens: int, side: int = 0) -> dict[str, Any]:
        """An answer of protocol.py."""


def compare(running: Sequence[Asks], asked: Asked, beams: int) -> dict[str, Any]:
    """Check what each says, then time them in turn."""
    files, rounds = asked.files, asked.rounds
    table: dict[str, dict[str, Any]] = {}
    able = speak(running, asked, beams, table)
    times, steps = np.zeros((2, rounds, len(able)))
    for number in track(range(rounds), f"{beams} beams, time"):
        for column, process in enumerate(able):
            answer = process.ask(files[number % len(files)], beams, asked.tokens, asked.side)
            times[number, column] = answer["ms"]
            steps[number, column] = answer.get("step_ms") or np.nan
            table[process.entry.name]["peak_rss_mb"] = answer["peak_rss_mb"]
    names = [process.entry.name for process in able]
    for column, name in enumerate(names):
        smallest = round(float(times[:, column].min()), 3)
        table[name]["ms"] = {**spread(times[:, column]), "min": smallest}
        if not np.isnan(steps[:, column]).any():
            table[name]["step_ms"] = round(float(np.median(steps[:, column])), 3)
        if asked.right in names:
            base = times[:, names.index(asked.right)]
            table[name]["times_faster"] = round(float(np.median(base / times[:, column])), 2)
    return table


def speak(
    running: Sequence[Asks], asked: Asked, beams: int, table: dict[str, dict[str, Any]]
) -> list[Asks]:
    """Ask all for every picture; returns those that may be timed, the table says of the others why.

    A float32 peer whose tokens are not the reference's gets no time.
    """
    said: dict[str, list[list[int]]] = {}
    able: list[Asks] = []
    for process in track(running, f"{beams} beams, tokens"):
        name = process.entry.name
        row = table[name] = {}
        if "error" in process.loaded:
            row["could_not"] = process.loaded["error"]
            continue
        answers = [process.ask(file, beams, asked.tokens, asked.side) for file in asked.files]
        failed = [answer["error"] for answer in answers if "error" in answer]
        if failed:
            row["could_not"] = failed[0]
            continue
        row["first_call_ms"] = round(answers[0]["ms"], 1)
        said[name] = [answer["tokens"] for answer in answers]
        able.append(process)
    right = said.get(asked.right)
    if right is None:
        return able
    for name, found in said.items():
        equal = sum(a == b for a, b in zip(found, right, strict=True))
        table[name]["same_captions"] = f"{equal} of {len(right)}"
    for process in [p for p in able if p.entry.exact]:
        if said[process.entry.name] != right:
            table[process.entry.name]["could_not"] = "says something else: not timed"
            able.remove(process)
    return able


def _side(model: Path) -> int:
    """Of the pictures that the model takes."""
    settings = model / "preprocessor_config.json"
    if settings.is_file():
        return int(json.loads(settings.read_text())["size"]["height"])
    from edgecap.runtime.bundle import read_bundle

    return read_bundle(model.with_name(model.name + "-fp32.edgecap")).manifest.image.size


def _pictures(photographs: Path, count: int, side: int, folder: Path) -> list[Path]:
    """Photographs as every peer gets them: uint8, [S, S, 3] where ``side`` is not 0."""
    from edgecap.runtime.image import load_image, resize_image

    found = [path for path in sorted(photographs.iterdir()) if path.suffix in (".jpg", ".png")]
    files = []
    for path in found[:count]:
        files.append(folder / f"{path.stem}.npy")
        pixels = load_image(path)
        np.save(files[-1], resize_image(pixels, side) if side else pixels)
    if not files:
        raise click.ClickException(f"{photographs} holds no .jpg or .png files")
    return files


if __name__ == "__main__":
    main()
