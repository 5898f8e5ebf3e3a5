"""Builds ``cuda_driver.c`` as libcuda.so.1 and runs code in a process that loads it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("cuda_driver.c")
# What stands before every test's code; the other binding cannot be imported.
HEADS = {
    "cuda-python": "import sys\nsys.modules['pycuda'] = None\n",
    "pycuda": "import sys\nsys.modules['cuda'] = None\n",
}


class EmulatedDriver:
    """A folder with the library. ``run`` gives what the code printed, and fails as it does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, code: str, binding: str = "cuda-python", **environment: str) -> str:
        env = {**os.environ, "LD_LIBRARY_PATH": str(self.folder), **environment}
        program = HEADS[binding] + textwrap.dedent(code)
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=120
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


def build(folder: Path) -> EmulatedDriver:
    """Compile the driver. Skips where there is no C compiler, or not Linux."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler on this Linux machine to build the emulated driver with")
    sources = [str(SOURCE)]
    if importlib.util.find_spec("pycuda") is not None:
        sources.append(str(_stubs(compiler, folder)))
    library = folder / "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, *sources, "-lpthread", "-o", str(library)], check=True)
    (folder / "libcuda.so").symlink_to(library)
    return EmulatedDriver(folder)


def _stubs(compiler: str, folder: Path) -> Path:
    """PyCUDA does not load without every call that it could make: those no test makes, refused."""
    spec = importlib.util.find_spec("pycuda")
    assert spec is not None
    assert spec.submodule_search_locations
    modules = Path(spec.submodule_search_locations[0]).glob("_driver*.so")
    asked = _calls([str(path) for path in modules], "--undefined-only")
    probe = folder / "probe.so"
    subprocess.run([compiler, "-shared", "-fPIC", str(SOURCE), "-o", str(probe)], check=True)
    missing = sorted(asked - _calls([str(probe)], "--defined-only"))
    path = folder / "stubs.c"
    path.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in missing))
    return path


def _calls(files: list[str], which: str) -> set[str]:
    listed = subprocess.run(
        ["nm", "-D", which, *files], capture_output=True, text=True, check=True
    ).stdout
    names = (line.split()[-1] for line in listed.splitlines() if line)
    return {name for name in names if name.startswith("cu")}
