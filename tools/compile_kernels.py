"""Compile the CUDA kernels for every target GPU, record what they take, and refuse new spills.

    python tools/compile_kernels.py             compile, write benchmarks/records/kernels.json
    python tools/compile_kernels.py --check     compile, compare with the record
    python tools/compile_kernels.py --library libedgecap_cuda.so --targets 87
                                                build the library for these GPUs; "native" is
                                                the one of this machine

A kernel spills when it wants more registers than its launch bounds leave it: its values then go
through memory. --check fails where a kernel spills more bytes than its record says (a new kernel:
any at all). Needs nvcc and c++filt; no GPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ROOT / "runtime" / "native"
RECORD = ROOT / "benchmarks" / "records" / "kernels.json"
TARGETS = ("75", "86", "87", "89", "90", "100", "110", "120")
FLAGS = ("-std=c++17", "-O3")
ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)\w?'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")

Kernels = dict[str, dict[str, dict[str, int]]]


def sources() -> list[Path]:
    return sorted(NATIVE.glob("*.cu"))


def source_hash() -> str:
    """sha256 over all that the kernels are built from."""
    digest = hashlib.sha256()
    files = [path for kind in ("*.cu", "*.cuh", "*.h") for path in NATIVE.glob(kind)]
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def run(command: list[str]) -> str:
    """Standard output and error together; a failure shows them and ends the program."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise click.ClickException(f"{' '.join(command[:1])} failed:\n{done.stdout[-4000:]}")
    return done.stdout


def find_compiler() -> str | None:
    """nvcc of CUDACXX, of the PATH, or of the package nvidia-cuda-nvcc."""
    found = shutil.which(os.environ.get("CUDACXX", "nvcc"))
    spec = None if found else importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("*/bin/nvcc")):
            found = shutil.which(path)
    return found


def compiler() -> str:
    found = find_compiler()
    if found is None:
        raise click.ClickException("no nvcc on the PATH or in CUDACXX; install CUDA's compiler")
    return found


def version(nvcc: str) -> str:
    found = re.search(r"release \S+ V(\S+)", run([nvcc, "--version"]))
    return found.group(1) if found else "unknown"


def name_of(mangled: str) -> str:
    """BeamStep<float> from the linker's name."""
    full = run(["c++filt", "--no-params", mangled]).strip()
    return full.replace("(anonymous namespace)::", "").replace("edgecap::gpu::", "")


def measure(nvcc: str, source: Path, target: str, folder: Path) -> Kernels:
    """What each kernel of a file takes on one target."""
    code = f"arch=compute_{target},code=sm_{target}"
    cubin = folder / f"{source.stem}_{target}.cubin"
    command = [nvcc, *FLAGS, "-gencode", code, "-cubin", "-Xptxas", "-v", f"-I{NATIVE}"]
    output = run([*command, str(source), "-o", str(cubin)])
    kernels: Kernels = {}
    entry: dict[str, int] = {}
    for line in output.splitlines():
        if found := ENTRY.search(line):
            entry = {}
            kernels.setdefault(f"{source.name}: {name_of(found[1])}", {})[found[2]] = entry
        elif found := STACK.search(line):
            entry.update(stack=int(found[1]), spill=int(found[2]) + int(found[3]))
        elif found := USED.search(line):
            shared = SHARED.search(line)
            entry.update(registers=int(found[1]), shared=int(shared[1]) if shared else 0)
    return kernels


def measure_all(nvcc: str, targets: tuple[str, ...]) -> Kernels:
    kernels: Kernels = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [
            pool.submit(measure, nvcc, source, target, Path(folder))
            for source in sources()
            for target in targets
        ]
        for job in jobs:
            for name, found in job.result().items():
                kernels.setdefault(name, {}).update(found)
    return dict(sorted(kernels.items()))


def overruns(kernels: Kernels, record: dict[str, Any]) -> list[str]:
    """One line for each kernel and target that spills more than the record says."""
    lines = []
    for name, targets in kernels.items():
        for target, found in targets.items():
            allowed = record.get("kernels", {}).get(name, {}).get(target, {}).get("spill", 0)
            if found["spill"] > allowed:
                lines.append(
                    f"{name} spills {found['spill']} bytes on sm_{target}, {allowed} at most: use "
                    "fewer registers, or loosen its launch bounds"
                )
    return lines


def link(nvcc: str, library: Path, targets: tuple[str, ...]) -> None:
    """libedgecap_cuda.so with code for the targets."""
    flags = [f"-gencode=arch=compute_{target},code=sm_{target}" for target in targets]
    named = f'-DEDGECAP_CUDA_ARCHITECTURES="{",".join(targets)}"'
    with tempfile.TemporaryDirectory(dir=library.resolve().parent) as folder:
        built = Path(folder) / library.name
        command = [nvcc, *FLAGS, *flags, named, "-shared", "-Xcompiler", "-fPIC", "--threads", "0"]
        run([*command, f"-I{NATIVE}", *map(str, sources()), "-o", str(built)])
        built.replace(library)


def native() -> str:
    """Compute capability of this machine's GPU."""
    from edgecap.runtime.engines.cuda_memory import find_device

    device = find_device()
    if device is None:
        raise click.ClickException("no CUDA device here; name targets, such as --targets 87")
    return device.compute_capability


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--check", is_flag=True, help="Compare with the record; write nothing.")
@click.option(
    "--targets", default=",".join(TARGETS), show_default=True, help="Compute capabilities."
)
@click.option("--library", type=click.Path(path_type=Path), help="Build the library instead.")
@click.option("--record", type=click.Path(path_type=Path), default=RECORD, help="The JSON record.")
def main(check: bool, targets: str, library: Path | None, record: Path) -> None:
    named = native() if targets == "native" else targets
    chosen = tuple(target.strip().replace(".", "") for target in named.split(","))
    if not all(re.fullmatch(r"\d{2,3}", target) for target in chosen):
        raise click.BadParameter(f"targets are {targets!r}; give numbers such as 87,110")
    nvcc = compiler()
    if library is not None:
        link(nvcc, library, chosen)
        click.echo(f"{library}: code for {', '.join(f'sm_{target}' for target in chosen)}")
        return
    kernels = measure_all(nvcc, chosen)
    known = json.loads(record.read_text()) if record.is_file() else {}
    over = overruns(kernels, known)
    for line in over:
        click.echo(line, err=True)
    spills = sum(found["spill"] > 0 for each in kernels.values() for found in each.values())
    click.echo(f"{len(kernels)} kernels, {len(chosen)} targets, {spills} with spills")
    if check:
        sys.exit(1 if over else 0)
    made = {"nvcc": version(nvcc), "flags": " ".join(FLAGS), "sources_sha256": source_hash()}
    text = json.dumps({**made, "kernels": kernels}, indent=1) + "\n"
    partial = record.with_suffix(".tmp")
    partial.write_text(text)
    partial.replace(record)


if __name__ == "__main__":
    main()
