"""The order of the floors: who may import whom, and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("runtime", "training", "export", "edgecap")  # each may import only what is left of it
FILES = sorted(
    path for floor in FLOORS for path in (ROOT / floor).rglob("*.py") if not path.is_symlink()
)


def floor_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def own_files() -> list[Path]:
    """Every file once: the symlinks inside edgecap/ lead to the floors themselves."""
    links = {ROOT / "edgecap" / floor for floor in FLOORS}
    return [path for path in FILES if not any(link in path.parents for link in links)]


def imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module or "")
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and str(node.value).startswith("edgecap."):
            # Modules imported by name later, such as the registries'.
            names.append(str(node.value).partition(" ")[0])
    return names


@pytest.mark.parametrize("path", own_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_floors_below_it(path: Path) -> None:
    allowed = FLOORS[: FLOORS.index(floor_of(path)) + 1]
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in ("runtime", "export", "training"), f"{name}: say edgecap.{name}"
        if parts[0] != "edgecap" or floor_of(path) == "edgecap":
            continue
        if len(parts) > 1 and parts[1] in FLOORS:
            assert parts[1] in allowed, f"{floor_of(path)} is below {parts[1]}"


def test_there_is_something_to_check() -> None:
    assert len(own_files()) > 30
    assert {floor_of(path) for path in own_files()} == set(FLOORS)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_face_and_the_runtime_load_without_torch() -> None:
    modules = [
        ".".join(("edgecap", *path.relative_to(ROOT).with_suffix("").parts))
        for path in own_files()
        if floor_of(path) == "runtime" and path.name != "__init__.py"
    ]
    code = f"""
import importlib, sys
import edgecap, edgecap.cli.main
for name in {modules!r}:
    importlib.import_module(name)
print([name for name in ("torch", "onnx", "transformers", "matplotlib") if name in sys.modules])
"""
    assert run(code) == "[]"


def test_import_edgecap_alone_is_light() -> None:
    code = """
import sys
import edgecap
heavy = ("numpy", "cv2", "onnxruntime", "tokenizers", "rich", "click")
print([name for name in heavy if name in sys.modules])
"""
    assert run(code) == "[]"
