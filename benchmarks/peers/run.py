"""Peers side by side: same weights, pictures, beams and lengths, in turn on one machine.

    python benchmarks/peers/run.py vit-gpt2 --models build/peers --photographs FOLDER \\
        --out benchmarks/records/peers_vit_gpt2.json

Every peer is a process of its own, in its own environment where its packages clash with ours; one
works while the others wait. A round asks each for the same picture, so that a change of the
machine's speed hits all of them. Nothing is timed before the tokens were compared with those of
transformers: what differs says so in the record.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import command, machine, spread, write_atomically

HERE = Path(__file__).parent
REFERENCE = "transformers"


@dataclass(frozen=True)
class Entry:
    """A peer of the table.

    script : beside this file
    model : what is put behind the model's folder to get what this peer loads
    environment : folder of its own virtual environment, below ``--environments``; ours where empty
    exact : whether float32 arithmetic lets its tokens be compared one by one
    """

    name: str
    script: str
    model: str = ""
    environment: str = ""
    variant: str = ""
    exact: bool = True


PEERS = (
    Entry(REFERENCE, "transformers_generate.py"),
    Entry("transformers, torch.compile", "transformers_generate.py", variant="compile"),
    Entry("optimum-onnx", "optimum_onnx.py", environment="optimum"),
    Entry("edgecap fp32", "edgecap_bundle.py", model="-fp32.edgecap"),
    Entry("edgecap int8", "edgecap_bundle.py", model="-int8.edgecap", exact=False),
)


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

    def ask(self, picture: Path, beams: int, tokens: int) -> dict[str, Any]:
        assert self._child.stdin is not None
        question = {"picture": str(picture), "beams": beams, "tokens": tokens}
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
@click.argument("model")
@click.option("--models", type=click.Path(path_type=Path), default=Path("build/peers"))
@click.option("--environments", type=click.Path(path_type=Path), default=Path("build/peers"))
@click.option("--photographs", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--pictures", default=4, show_default=True)
@click.option("--beams", multiple=True, type=int, default=(4, 1), show_default=True)
@click.option("--tokens", default=16, show_default=True)
@click.option("--rounds", default=12, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--peers", help="Names with commas between; all by default.")
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
    peers: str | None,
    out: Path | None,
) -> None:
    """Time MODEL, a folder that models.py wrote below --models."""
    chosen = [entry for entry in PEERS if peers is None or entry.name in peers.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        files = _pixels(photographs, pictures, models / model, Path(folder))
        running = [
            Process(entry, models / model, environments, threads)
            for entry in track(chosen, "loading")
        ]
        try:
            tables = {f"beams_{k}": compare(running, files, k, tokens, rounds) for k in beams}
        finally:
            for process in running:
                process.close()
    record = {
        "command": command("benchmarks/peers/run.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": model,
        "weights": "random: latency does not depend on them",
        "tokens": tokens,
        "threads": threads,
        "measured": "resized uint8 pixels to token ids, milliseconds",
        "loaded": {process.entry.name: process.loaded for process in running},
        **tables,
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def compare(
    running: list[Process], files: list[Path], beams: int, tokens: int, rounds: int
) -> dict[str, Any]:
    """Check what each says, then time them in turn."""
    table: dict[str, dict[str, Any]] = {}
    said: dict[str, list[list[int]]] = {}
    able = []
    for process in track(running, f"{beams} beams, tokens"):
        name = process.entry.name
        row = table[name] = {}
        if "error" in process.loaded:
            row["could_not"] = process.loaded["error"]
            continue
        answers = [process.ask(file, beams, tokens) for file in files]
        failed = [answer["error"] for answer in answers if "error" in answer]
        if failed:
            row["could_not"] = failed[0]
            continue
        row["first_call_ms"] = round(answers[0]["ms"], 1)
        said[name] = [answer["tokens"] for answer in answers]
        able.append(process)
    right = said.get(REFERENCE)
    for name, found in said.items():
        if right is not None:
            equal = sum(a == b for a, b in zip(found, right, strict=True))
            table[name]["captions_as_transformers"] = f"{equal} of {len(files)}"
    for process in [p for p in able if p.entry.exact]:
        if right is not None and said[process.entry.name] != right:
            table[process.entry.name]["could_not"] = "says something else: not timed"
            able.remove(process)
    times = np.zeros((rounds, len(able)))
    for number in track(range(rounds), f"{beams} beams, time"):
        for column, process in enumerate(able):
            answer = process.ask(files[number % len(files)], beams, tokens)
            times[number, column] = answer["ms"]
            table[process.entry.name]["peak_rss_mb"] = answer["peak_rss_mb"]
    names = [process.entry.name for process in able]
    for column, name in enumerate(names):
        table[name]["ms"] = spread(times[:, column])
        if REFERENCE in names:
            base = times[:, names.index(REFERENCE)]
            table[name]["times_faster_than_transformers"] = round(
                float(np.median(base / times[:, column])), 2
            )
    return table


def _pixels(photographs: Path, count: int, model: Path, folder: Path) -> list[Path]:
    """Photographs as every peer gets them: uint8 [S, S, 3], resized."""
    from edgecap.runtime.image import load_image, resize_image

    size = json.loads((model / "preprocessor_config.json").read_text())["size"]["height"]
    found = [path for path in sorted(photographs.iterdir()) if path.suffix in (".jpg", ".png")]
    files = []
    for path in found[:count]:
        files.append(folder / f"{path.stem}.npy")
        np.save(files[-1], resize_image(load_image(path), size))
    if not files:
        raise click.ClickException(f"{photographs} holds no .jpg or .png files")
    return files


if __name__ == "__main__":
    main()
