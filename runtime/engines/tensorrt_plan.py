"""Engines on disk: a plan as TensorRT wrote it, and beside it a JSON sidecar that says whose it is.

TensorRT loads a plan on the GPU and with the version that it was built for, and may end the process
over any other. So the sidecar is read first, and a plan that does not belong here never reaches
TensorRT. Plans hold machine code: they are made on the machine that runs them, not passed on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.engines.cuda_memory import Device
from edgecap.runtime.engines.tensorrt_library import Library
from edgecap.runtime.errors import EngineError
from edgecap.runtime.manifest import NotNegative, Positive, Sha256, TensorSpec

SIDECAR_VERSION = 1
Role = Literal["encoder", "decoder"]
ROLES: tuple[Role, ...] = ("encoder", "decoder")
Span = tuple[Positive, Positive]


class Profile(msgspec.Struct, frozen=True):
    """Fewest and most pictures (B) and beams (K) at once."""

    batch: Span
    beams: Span


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan was built from, for what, and what it takes and gives.

    ``graph_sha256`` is that of the graph in the bundle; ``gpu`` is empty for a plan that fits every
    GPU of its compute capability; ``preparation`` counts changes of how graphs are prepared.
    """

    schema_version: int = SIDECAR_VERSION
    model: str
    role: Role
    graph_sha256: Sha256
    preparation: NotNegative
    library: str
    library_version: str
    gpu: str
    compute_capability: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\.[0-9]+$")]
    precision: str
    profile: Profile
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    build: dict[str, str | int | float] = {}  # how it was built; nothing depends on it
    plan_sha256: Sha256
    plan_bytes: Positive


@dataclass(frozen=True)
class Wanted:
    """What a plan must be for, to run here. ``preparation`` or ``precision`` None: any."""

    role: Role
    graph_sha256: str
    library: str
    library_version: str
    device: Device
    precision: str | None = None
    preparation: int | None = None


def wanted(
    bundle: Bundle, role: Role, library: Library, device: Device, precision: str | None = None
) -> Wanted:
    """What runs the ``role`` of a bundle on this device with this library."""
    manifest = bundle.manifest
    digest = manifest.files[getattr(manifest.graphs, role).file].sha256
    return Wanted(role, digest, library.name, library.version, device, precision)


def default_folder() -> Path:
    """Where engines are kept: ``edgecap/engines`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgecap" / "engines"


def plan_key(sidecar: Sidecar) -> str:
    """16 hexadecimal digits of all that decides whether a plan can be used."""
    facts = [
        *(sidecar.role, sidecar.graph_sha256, str(sidecar.preparation)),
        *(sidecar.library, sidecar.library_version, sidecar.gpu, sidecar.compute_capability),
        *(sidecar.precision, *map(str, (*sidecar.profile.batch, *sidecar.profile.beams))),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def paths(folder: Path, sidecar: Sidecar) -> tuple[Path, Path]:
    """The plan's path and the sidecar's."""
    stem = f"{sidecar.role}-{plan_key(sidecar)}"
    return folder / f"{stem}.plan", folder / f"{stem}.json"


def read_sidecar(path: Path) -> Sidecar:
    """Read one sidecar. Raises ``EngineError`` for one that is damaged or of a newer schema."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Sidecar)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineError(f"{path} cannot be read: {error}; delete it and build again") from None
    if found.schema_version > SIDECAR_VERSION:
        raise EngineError(
            f"{path} has schema {found.schema_version}, this EdgeCap reads up to {SIDECAR_VERSION}"
        )
    return found


def sidecars(folder: Path) -> Iterator[tuple[Path, Sidecar]]:
    """Every sidecar of the folder that can be read, by name."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield path, read_sidecar(path)
        except EngineError:
            continue


def find_plan(folder: Path, want: Wanted, model: str) -> tuple[Path, Sidecar]:
    """The newest plan of the folder that fits. model : its name, for the message.

    Raises ``EngineError`` where none does: the message says what the nearest one is for.
    """
    nearest: tuple[int, str] | None = None
    fitting = []
    for path, sidecar in sidecars(folder):
        if sidecar.role != want.role:
            continue
        rank, difference = mismatch(sidecar, want)
        if not difference:
            fitting.append((path.stat().st_mtime, path, sidecar))
        elif nearest is None or rank > nearest[0]:
            nearest = rank, f"{path.with_suffix('.plan')} {difference}"
    if fitting:
        _, path, sidecar = max(fitting, key=lambda item: item[:2])
        return path.with_suffix(".plan"), sidecar
    reason = nearest[1] if nearest else f"there is no {want.role} engine in {folder}"
    raise EngineError(f"{reason}; build it on this machine: edgecap build-engine {model}")


def mismatch(sidecar: Sidecar, want: Wanted) -> tuple[int, str]:
    """(how much agrees, why the plan does not fit); the text is empty where it does."""
    there = f"{sidecar.gpu or 'any GPU'}, compute capability {sidecar.compute_capability}"
    here = f"{want.device.name}, compute capability {want.device.compute_capability}"
    same_gpu = sidecar.gpu in ("", want.device.name)
    same_gpu = same_gpu and sidecar.compute_capability == want.device.compute_capability
    checks = [
        (sidecar.graph_sha256 == want.graph_sha256, "was built from another model's graph"),
        (same_gpu, f"was built for {there}; this machine has {here}"),
        (
            (sidecar.library, sidecar.library_version) == (want.library, want.library_version),
            f"was built by {sidecar.library} {sidecar.library_version}; "
            f"{want.library} {want.library_version} is installed",
        ),
        (
            want.precision in (None, sidecar.precision),
            f"computes in {sidecar.precision}, {want.precision} is asked for",
        ),
        (
            want.preparation in (None, sidecar.preparation),
            "was built by an older EdgeCap that prepared graphs in another way",
        ),
    ]
    for rank, (good, text) in enumerate(checks):
        if not good:
            return rank, text
    return len(checks), ""


def read_plan(path: Path, sidecar: Sidecar) -> bytes:
    """The plan's bytes. Raises ``EngineError`` where they are not those the sidecar tells of."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}; build it again") from None
    if len(data) != sidecar.plan_bytes or hashlib.sha256(data).hexdigest() != sidecar.plan_sha256:
        raise EngineError(f"{path} is damaged or cut short; delete it and build again")
    return data
