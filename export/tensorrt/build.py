"""A bundle -> two TensorRT engines in a folder, or the ones that are there already."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from edgecap.export.tensorrt.operators import lint
from edgecap.export.tensorrt.prepare import PRECISIONS, PREPARATION, prepare
from edgecap.export.tensorrt.sidecar import make_folder, write_plan
from edgecap.export.tensorrt.versions import ConfigOptions, Session, targets
from edgecap.runtime.bundle import Bundle
from edgecap.runtime.engines.cuda_memory import Device
from edgecap.runtime.engines.tensorrt_library import Library
from edgecap.runtime.engines.tensorrt_plan import (
    ROLES,
    Profile,
    Role,
    Sidecar,
    paths,
    read_plan,
    read_sidecar,
)
from edgecap.runtime.errors import EngineError, OptionsError
from edgecap.runtime.manifest import GraphSpec, TensorSpec

MEBIBYTE = 1 << 20
Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class BuildOptions:
    """What engines are built for.

    precision : "fp16", "int8" (where the encoder is quantised) or "fp32"
    workspace : bytes of GPU memory that one layer may use
    batch, beams : fewest and most at once; the engine is fastest at one picture and most beams
    target : "sm_87"; the GPU that is here if None
    level, low_memory, version_compatible : as in ``ConfigOptions``
    """

    precision: str = "fp16"
    workspace: int = 512 * MEBIBYTE
    batch: tuple[int, int] = (1, 8)
    beams: tuple[int, int] = (1, 4)
    target: str | None = None
    level: int | None = None
    low_memory: bool = False
    version_compatible: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise OptionsError(
                f"precision is {self.precision!r}; give one of {', '.join(PRECISIONS)}"
            )
        if self.workspace < MEBIBYTE:
            raise OptionsError(f"workspace is {self.workspace} bytes; give 1MiB or more")
        for name, (low, high), most in (
            ("batch", self.batch, 64),
            ("beams", self.beams, 32),
        ):
            if not 1 <= low <= high <= most:
                raise OptionsError(f"{name} is {low}..{high}; give A..B with 1 <= A <= B <= {most}")
        if self.level is not None and not 0 <= self.level <= 5:
            raise OptionsError(f"level is {self.level}; give 0 (built quickly) to 5 (runs fastest)")
        if self.target is not None:
            capability(self.target)


@dataclass(frozen=True)
class Engines:
    """The two plans' paths and sidecars by role, and the roles that were built just now."""

    paths: dict[Role, Path]
    sidecars: dict[Role, Sidecar]
    built: tuple[Role, ...]


def usual_beams(bundle: Bundle) -> tuple[int, int]:
    """1 to 4 beams, or to as many as the model's own default asks for."""
    return 1, max(4, bundle.manifest.decoding.beams)


def capability(target: str) -> str:
    """``sm_87`` -> ``8.7``."""
    found = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", target.lower())
    if found is None:
        raise OptionsError(f"target is {target!r}; give a compute capability such as sm_87")
    return f"{found[1]}.{found[2]}"


def resolve_target(library: Library, device: Device | None, target: str | None) -> Device:
    """What to build for. Its name is empty where the plan fits all GPUs of that capability.

    Raises ``EngineError`` for a target that this library cannot build for here.
    """
    wanted = None if target is None else capability(target)
    known = targets(library)
    if device is not None and wanted in (None, device.compute_capability):
        return device
    if wanted is not None and wanted in known:
        return Device("", wanted)
    if known:
        given = f"not for {wanted}" if wanted else "and there is no GPU here"
        names = ", ".join("sm_" + text.replace(".", "") for text in known)
        raise EngineError(f"{library} builds for {names}, {given}; give one of them as --target")
    if device is None:
        raise EngineError(
            f"{library} builds on the GPU that it builds for, and there is none here; run this on "
            "the device, or install edgecap[tensorrt-rtx] to build for an RTX card"
        )
    raise EngineError(
        f"{library} builds for the GPU that is here, {device.name} "
        f"({device.compute_capability}), not for {wanted}; build on the device that will run it"
    )


def ensure_engines(
    bundle: Bundle,
    library: Library,
    device: Device | None,
    folder: Path,
    options: BuildOptions,
    *,
    again: bool = False,
    say: Say = lambda line: None,
) -> Engines:
    """Engines for a bundle: what the folder has is kept, the rest is built, ``again`` or not.

    Raises ``EngineError`` in one line; nothing half-written stays behind.
    """
    where = resolve_target(library, device, options.target)
    make_folder(folder)
    protos = None
    plans: dict[Role, Path] = {}
    found: dict[Role, Sidecar] = {}
    built: list[Role] = []
    for role in ROLES:
        draft = _draft(bundle, role, library, where, options)
        plan_path, sidecar_path = paths(folder, draft)
        ready = None if again else _ready(plan_path, sidecar_path)
        if ready is None:
            if protos is None:
                protos = prepare(bundle, options.precision)
            file = getattr(bundle.manifest.graphs, role).file
            say(f"building the {role}, {options.precision}, with {library}")
            for finding in lint(protos[role])[:5]:
                say(f"{file}: {finding}")
            plan, draft = _build(
                draft, protos[role].SerializeToString(), bundle, library, where, folder, options
            )
            plan_path, ready = write_plan(folder, draft, plan)
            built.append(role)
        plans[role], found[role] = plan_path, ready
    return Engines(plans, found, tuple(built))


def _ready(plan_path: Path, sidecar_path: Path) -> Sidecar | None:
    """The sidecar of a plan that is there and whole."""
    try:
        sidecar = read_sidecar(sidecar_path)
        read_plan(plan_path, sidecar)
    except EngineError:
        return None
    return sidecar


def _draft(
    bundle: Bundle, role: Role, library: Library, where: Device, options: BuildOptions
) -> Sidecar:
    manifest = bundle.manifest
    return Sidecar(
        model=manifest.name,
        role=role,
        graph_sha256=manifest.files[getattr(manifest.graphs, role).file].sha256,
        preparation=PREPARATION,
        library=library.name,
        library_version=library.version,
        gpu=where.name,
        compute_capability=where.compute_capability,
        precision=options.precision,
        profile=Profile(options.batch, options.beams),
        inputs=(),
        outputs=(),
        plan_sha256="0" * 64,
        plan_bytes=1,
    )


def _build(
    draft: Sidecar,
    graph: bytes,
    bundle: Bundle,
    library: Library,
    where: Device,
    folder: Path,
    options: BuildOptions,
) -> tuple[bytes, Sidecar]:
    from msgspec import structs

    manifest = bundle.manifest
    spec: GraphSpec = getattr(manifest.graphs, draft.role)
    begin = perf_counter()
    session = Session(library)
    network = session.parse(graph, spec.file)
    inputs, outputs = session.table(network)
    config = session.config(
        options.precision,
        ConfigOptions(
            workspace=options.workspace,
            level=options.level,
            low_memory=options.low_memory,
            version_compatible=options.version_compatible,
            # A library that builds for the GPU at hand is not told which.
            target=None if where.name else where.compute_capability,
        ),
    )
    session.add_profile(config, profile_shapes(inputs, draft.profile, manifest.max_positions))
    cache = folder / f"timings-{library.name}-{library.version}-{where.compute_capability}.bin"
    plan = session.build(network, config, cache, f"the {draft.role}")
    sides = {s.name: s.shape for s in (*spec.inputs, *spec.outputs)}
    return plan, structs.replace(
        draft,
        inputs=_named(inputs, sides),
        outputs=_named(outputs, sides),
        build={
            "seconds": round(perf_counter() - begin, 2),
            "workspace": options.workspace,
            "low_memory": str(options.low_memory),
        },
    )


def _named(
    specs: tuple[TensorSpec, ...], sides: dict[str, tuple[int | str, ...]]
) -> tuple[TensorSpec, ...]:
    """The tables with the manifest's names for free sides."""
    return tuple(TensorSpec(spec.name, spec.dtype, sides[spec.name]) for spec in specs)


def profile_shapes(inputs: tuple[TensorSpec, ...], profile: Profile, max_positions: int) -> Shapes:
    """Least, likeliest and greatest shape of each input with a free side.

    B pictures, R = B * K rows, S = K * T cache slots. The likeliest: fewest pictures, most beams.
    """
    (least_b, most_b), (least_k, most_k) = profile.batch, profile.beams
    sizes = ((least_b, least_k), (least_b, most_k), (most_b, most_k))
    found: Shapes = {}
    for spec in inputs:
        kind = spec.name.partition(".")[0]
        if all(isinstance(side, int) for side in spec.shape):
            continue
        shapes = []
        for pictures, beams in sizes:
            rows, slots = pictures * beams, beams * max_positions
            first = pictures if kind in ("image", "memory", "cache") else rows
            free = iter((first, slots))
            shapes.append(tuple(s if isinstance(s, int) else next(free) for s in spec.shape))
        found[spec.name] = (shapes[0], shapes[1], shapes[2])
    return found
