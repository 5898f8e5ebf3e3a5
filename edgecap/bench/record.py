"""What a measurement leaves behind: a JSON file with a schema, read back strictly."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgecap.bench.machine import Machine, State
from edgecap.bench.statistics import Summary
from edgecap.bench.usage import Usage
from edgecap.runtime.errors import DataError
from edgecap.runtime.files import replacing

KIND = "edgecap.bench"
VERSION = 1
SCHEMA = Path(__file__).parent / "record.schema.json"
STAGES = ("capture_age", "preprocess", "encode", "decode", "deliver")  # they add up to TOTAL
TOTAL = "total"
LARGEST = 256 << 20  # bytes of a record that is read

Count = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0)]


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bundle that was measured."""

    name: str
    family: str
    bytes: Count
    sha256: str


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where frames came from.

    name : the address, of a path the last part alone, credentials masked
    generated : no source was given, and the frames are drawn
    live : frames came in their own time, and the newest won
    width, height : of the first frame in pixels; 0 where none came
    """

    name: str
    generated: bool
    live: bool
    loop: bool
    width: Count
    height: Count


class Equality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the engine says what the reference says, before anything was timed.

    same : of ``pictures`` captions, how many had the reference's very tokens
    needed : how many had to
    """

    reference: str
    pictures: Count
    same: Count
    needed: Count

    @property
    def passed(self) -> bool:
        """Whether times may be told."""
        return self.same >= self.needed


class Cold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The beginning: the model's loading, and its first caption from preprocessing to its end."""

    load_ms: Milliseconds
    first_caption_ms: Milliseconds


class Energy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Joules for each caption by meter, idle power included; empty where nothing was measured."""

    joules_per_caption: dict[str, float]
    watts: dict[str, float]


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One combination of beams, threads and engine.

    precision : of own decoder steps; empty for engines that take the bundle's
    ended : duration, max captions, end of source, source lost (``problem`` says how), stopped (by
        Ctrl-C), or unequal (not timed)
    seconds, captions : of the measured part, without the warm-up
    received, dropped : frames of the whole run that came, and that were never looked at
    stages : figures of each of ``STAGES`` and of ``TOTAL``; none without captions
    samples : what those figures are of, milliseconds in the order of measurement
    noise : reasons, in words, why this machine was too restless for a verdict
    """

    beams: Count
    threads: Count | None
    engine: str
    engine_summary: str
    equality: Equality
    ended: str
    precision: str = ""
    problem: str = ""
    cold: Cold | None = None
    warm_up: Count = 0
    seconds: float = 0.0
    captions: Count = 0
    received: Count = 0
    dropped: Count = 0
    captions_per_second: float = 0.0
    stages: dict[str, Summary] = {}
    samples: dict[str, list[float]] = {}
    usage: Usage | None = None
    energy: Energy | None = None
    before: State | None = None
    after: State | None = None
    noise: list[str] = []

    @property
    def title(self) -> str:
        """What makes it another run than those beside it."""
        threads = "" if self.threads is None else f", {self.threads} threads"
        precision = f" in {self.precision}" if self.precision else ""
        return f"{self.engine}{precision}, {self.beams} beams{threads}"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All runs of one ``edgecap bench``, and what they were made of and on."""

    kind: str
    version: int
    command: str
    date: str
    commit: str
    machine: Machine
    model: Model
    source: Source
    runs: list[Run]
    interrupted: bool = False


def write_record(path: Path, record: Record) -> None:
    """Write the JSON file in one move. Raises ``DataError`` where that cannot be."""
    write_text(path, json.dumps(msgspec.to_builtins(record), indent=1) + "\n")


def read_record(path: Path) -> Record:
    """Read a record. Raises ``DataError`` for a file that is none."""
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} is larger than any record of `edgecap bench --json`")
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a record") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is no record of `edgecap bench --json` of version {VERSION}: {error}"
        ) from None
    if (record.kind, record.version) != (KIND, VERSION):
        raise DataError(
            f"{path} is {record.kind!r} of version {record.version}; this edgecap reads {KIND!r} "
            f"of version {VERSION}: measure again"
        )
    for run in record.runs:
        for name, values in run.samples.items():
            if len(values) != run.captions or name not in run.stages:
                raise DataError(
                    f"{path}: {name} of {run.title} has {len(values)} samples, "
                    f"and the run {run.captions} captions; measure again"
                )
    return record


def schema() -> dict[str, Any]:
    """The JSON schema of a record; ``SCHEMA`` is its file."""
    made = msgspec.json.schema(Record)
    for part in made["$defs"].values():  # msgspec from 0.23 on takes the indentation off itself
        if "description" in part:
            part["description"] = inspect.cleandoc(part["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def write_text(path: Path, text: str) -> None:
    """Write beside the target and move there. Raises ``DataError`` where that cannot be."""
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); give another path") from None


def check_place(path: Path) -> None:
    """Raise ``DataError`` where no file can be written at ``path``."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise DataError(
            f"{path} cannot be written; give the path of a file in a folder that is there"
        )
