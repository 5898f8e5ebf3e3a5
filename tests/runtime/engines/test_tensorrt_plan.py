"""Sidecars: whose a plan is, told before TensorRT sees it; and the library's log as a sentence."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import tensorrt_emulation as emulation
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.engines.cuda_memory import Device
from edgecap.runtime.engines.tensorrt_library import (
    Library,
    Log,
    dtype_name,
    find_library,
    load_library,
)
from edgecap.runtime.engines.tensorrt_plan import (
    Profile,
    Sidecar,
    default_folder,
    find_plan,
    paths,
    plan_key,
    read_plan,
    read_sidecar,
    wanted,
)
from edgecap.runtime.errors import EngineError, MissingExtraError

LIBRARY = Library(None, "tensorrt", emulation.VERSION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"graph_sha256": "0" * 64}, "was built from another model's graph"),
        ({"gpu": "NVIDIA RTX 4090", "compute_capability": "8.9"}, "RTX 4090.*8.9.*has Orin.*8.7"),
        ({"compute_capability": "8.6"}, "built for Orin, compute capability 8.6; this machine"),
        ({"library_version": "10.13.3"}, r"built by tensorrt 10\.13\.3; tensorrt 10\.3\.0 is inst"),
        ({"library": "tensorrt_rtx"}, "built by tensorrt_rtx"),
        ({"precision": "int8"}, "computes in int8, fp32 is asked for"),
    ],
)
def test_a_plan_that_does_not_belong_here(
    tiny_bundle: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle, **change)
    want = wanted(bundle, "encoder", LIBRARY, emulation.DEVICE, "fp32")
    with pytest.raises(EngineError, match=message) as caught:
        find_plan(tmp_path, want, "default")
    assert str(caught.value).endswith("build it on this machine: edgecap build-engine default")
    assert "\n" not in str(caught.value)
    emulation.write_plans(tmp_path, bundle)  # the one that does is found beside it
    path, sidecar = find_plan(tmp_path, want, "default")
    assert path.is_file()
    assert read_plan(path, sidecar) == bundle.files["encoder.onnx"]


def test_the_nearest_misfit_is_told(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle, graph_sha256="0" * 64)
    emulation.write_plans(tmp_path, bundle, library_version="9.0.0")
    with pytest.raises(EngineError, match=r"built by tensorrt 9\.0\.0"):
        find_plan(tmp_path, wanted(bundle, "decoder", LIBRARY, emulation.DEVICE), "m")
    older = replace(wanted(bundle, "decoder", LIBRARY, emulation.DEVICE), preparation=2)
    emulation.write_plans(tmp_path, bundle)
    with pytest.raises(EngineError, match="was built by an older EdgeCap"):
        find_plan(tmp_path, older, "m")


def test_no_engine_at_all(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(EngineError, match=r"there is no encoder engine in .*nowhere; build it"):
        find_plan(tmp_path / "nowhere", wanted(bundle, "encoder", LIBRARY, emulation.DEVICE), "m")


def test_a_plan_for_every_gpu_of_its_capability(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle, gpu="")
    for name in ("Orin", "another"):
        find_plan(tmp_path, wanted(bundle, "encoder", LIBRARY, Device(name, "8.7")), "m")


def test_the_newest_of_several_is_taken(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    for age, precision in ((50, "fp16"), (10, "fp32"), (90, "int8")):
        for sidecar in emulation.write_plans(tmp_path, bundle, precision=precision):
            path = paths(tmp_path, sidecar)[1]
            os.utime(path, (1e9 - age, 1e9 - age))
    want = wanted(bundle, "encoder", LIBRARY, emulation.DEVICE)
    assert find_plan(tmp_path, want, "m")[1].precision == "fp32"


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_plan(tiny_bundle: Path, tmp_path: Path, damage: str) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    path, sidecar = find_plan(tmp_path, wanted(bundle, "encoder", LIBRARY, emulation.DEVICE), "m")
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data[:-1] if damage == "cut" else data)
    if damage == "gone":
        path.unlink()
    with pytest.raises(EngineError, match=r"damaged or cut short|cannot be read.*build it again"):
        read_plan(path, sidecar)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_damaged_sidecar_counts_for_nothing(
    tiny_bundle: Path, tmp_path: Path, text: bytes
) -> None:
    bundle = read_bundle(tiny_bundle)
    (tmp_path / "encoder-x.json").write_bytes(text)
    with pytest.raises(EngineError, match=r"cannot be read: .*; delete it and build again"):
        read_sidecar(tmp_path / "encoder-x.json")
    with pytest.raises(EngineError, match="there is no encoder engine"):
        find_plan(tmp_path, wanted(bundle, "encoder", LIBRARY, emulation.DEVICE), "m")


def test_a_sidecar_of_a_later_schema(tiny_bundle: Path, tmp_path: Path) -> None:
    sidecar = emulation.write_plans(tmp_path, read_bundle(tiny_bundle), schema_version=2)[0]
    with pytest.raises(EngineError, match="has schema 2, this EdgeCap reads up to 1"):
        read_sidecar(paths(tmp_path, sidecar)[1])


WORD = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "role": st.sampled_from(["encoder", "decoder"]),
    "graph_sha256": st.sampled_from(["0" * 64, "1" * 64]),
    "preparation": st.integers(0, 3),
    "library": st.sampled_from(["tensorrt", "tensorrt_rtx"]),
    "library_version": WORD,
    "gpu": WORD,
    "compute_capability": st.sampled_from(["8.6", "8.7", "12.0"]),
    "precision": st.sampled_from(["fp16", "int8"]),
    "profile": st.builds(
        Profile,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
    ),
}
SIDECARS = st.builds(
    Sidecar,
    model=st.just("m"),
    inputs=st.just(()),
    outputs=st.just(()),
    plan_sha256=st.just("0" * 64),
    plan_bytes=st.integers(1, 10**9),
    **FIELDS,
)


@given(SIDECARS, SIDECARS)
def test_keys_are_equal_where_all_that_counts_is(a: Sidecar, b: Sidecar) -> None:
    same = all(getattr(a, name) == getattr(b, name) for name in FIELDS)
    assert (plan_key(a) == plan_key(b)) == same
    assert msgspec.json.decode(msgspec.json.encode(a), type=Sidecar) == a


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/edgecap/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "edgecap" / "engines"


def test_a_log_is_told_in_one_line() -> None:
    library = emulation.library(emulation.HostCuda())
    log = Log(library)
    log.logger.log(3, "information")
    log.logger.log(2, "a warning")
    assert log.reason() == "it gave no reason"
    log.logger.log(
        1, "IBuilder::build: Error Code 4: API Usage (the\nreason. In check at /a/b.cpp:9)"
    )
    log.logger.log(1, "a second error")
    assert log.reason() == "IBuilder::build: Error Code 4: API Usage (the reason."
    assert not log.ran_out_of_memory
    log.logger.log(2, "Requested amount of GPU memory (900 bytes) could not be allocated.")
    assert log.ran_out_of_memory


def test_types_that_no_contract_has() -> None:
    library = emulation.library(emulation.HostCuda())
    kinds = library.module.DataType
    assert [dtype_name(library, k) for k in (kinds.HALF, kinds.BOOL)] == ["float16", "bool"]
    with pytest.raises(EngineError, match="a tensor of type 99"):
        dtype_name(library, 99)


def test_which_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    assert find_library() is None
    with pytest.raises(MissingExtraError, match=r"JetPack.*pip install 'edgecap\[gpu\]'"):
        load_library()
    rtx, full = ModuleType("tensorrt_rtx"), ModuleType("tensorrt")
    rtx.__version__, full.__version__ = "1.7.1.116", "10.3.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    assert str(load_library()) == "TensorRT for RTX 1.7.1.116"
    monkeypatch.setitem(sys.modules, "tensorrt", full)
    assert str(load_library()) == "TensorRT 10.3.0"
    assert load_library("tensorrt_rtx").is_rtx
