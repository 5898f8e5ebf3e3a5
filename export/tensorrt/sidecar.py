"""Writing engines into their folder: the plan, then the sidecar that makes it count."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import msgspec

from edgecap.runtime.engines.tensorrt_plan import Sidecar, paths
from edgecap.runtime.errors import EngineError
from edgecap.runtime.files import replacing


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one move: a reader sees the old one or the whole new one."""
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise EngineError(
            f"{path} cannot be written: {error.strerror}; give another folder with -o"
        ) from None


def make_folder(folder: Path) -> None:
    """Make the folder of engines where there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"the folder {folder} cannot be made: {error.strerror}; give another with -o"
        ) from None


def write_plan(folder: Path, sidecar: Sidecar, plan: bytes) -> tuple[Path, Sidecar]:
    """Keep a plan; its size and hash are filled in. Gives the plan's path and the sidecar.

    The sidecar of an older plan goes first, so that no sidecar ever tells of another plan.
    """
    digest = hashlib.sha256(plan).hexdigest()
    sidecar = msgspec.structs.replace(sidecar, plan_sha256=digest, plan_bytes=len(plan))
    plan_path, path = paths(folder, sidecar)
    make_folder(folder)
    with contextlib.suppress(OSError):  # a folder that is read only: told by the next line
        path.unlink(missing_ok=True)
    replace_file(plan_path, plan)
    text = msgspec.json.format(msgspec.json.encode(sidecar), indent=2)
    replace_file(path, text + b"\n")
    return plan_path, sidecar
