"""``edgecap build-engine``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgecap.cli.build_engine import command as build_engine
from edgecap.cli.main import run


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)


def test_engines_are_built_once(tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("tensorrt_rtx", "humanfriendly", "onnx"):
        pytest.importorskip(name)
    arguments = [str(tiny_bundle), "--rtx", "--target", "sm_86", "--workspace", "64MiB"]
    arguments += ["--batch", "1..2", "--beams", "3", "-o", str(tmp_path / "a" / "b")]
    for state in ("built in", "was there"):
        result = CliRunner().invoke(build_engine, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        assert result.stdout.count(state) == 2
    sidecars = [json.loads(p.read_text()) for p in (tmp_path / "a" / "b").glob("*.json")]
    assert {s["role"] for s in sidecars} == {"encoder", "decoder"}
    assert sidecars[0]["profile"] == {"batch": [1, 2], "beams": [3, 3]}
    assert sidecars[0]["build"]["workspace"] == 64 << 20


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--workspace", "much", "'much' is no size"),
        ("--batch", "1-8", "'1-8' is no span"),
        ("--beams", "9..x", "'9..x' is no span"),
        ("--target", "orin", "target is 'orin'"),
        ("--batch", "8..1", "batch is 8..1"),
    ],
)
def test_bad_options(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("humanfriendly")
    with pytest.raises(SystemExit) as caught:
        run(["build-engine", "default", option, value])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("no_tensorrt")
def test_without_tensorrt(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("humanfriendly")
    with pytest.raises(SystemExit) as caught:
        run(["build-engine", "default"])
    assert caught.value.code == 2
    assert "no tensorrt is installed" in capsys.readouterr().err
