"""One module for every release: modules shaped as 8.6, 10.3, 11.4 and RTX are, and no more."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgecap.export.tensorrt.build import BuildOptions, capability, profile_shapes, resolve_target
from edgecap.export.tensorrt.versions import (
    ConfigOptions,
    Session,
    load_timings,
    network_flags,
    precision_flags,
)
from edgecap.runtime.engines.cuda_memory import Device
from edgecap.runtime.engines.tensorrt_library import Library
from edgecap.runtime.engines.tensorrt_plan import Profile
from edgecap.runtime.errors import EngineError, OptionsError
from edgecap.runtime.manifest import TensorSpec

ORIN = Device("Orin", "8.7")
NETWORK_FLAGS = {
    "8.6.2": {"EXPLICIT_BATCH": 0},
    "10.3.0": {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1},
    "11.4.1": {},
    "1.7.1": {"STRONGLY_TYPED": 0},
}
BUILDER_FLAGS = {
    "8.6.2": ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "VERSION_COMPATIBLE"),
    "10.3.0": ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "VERSION_COMPATIBLE"),
    "11.4.1": ("VERSION_COMPATIBLE",),
    "1.7.1": (),
}


class Config:
    """What is asked of a configuration, written down."""

    def __init__(self) -> None:
        self.flags: list[str] = []
        self.pools: dict[str, int] = {}
        self.builder_optimization_level = 3
        self.max_aux_streams = 7
        self.timings: Any = None

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def create_timing_cache(self, data: bytes) -> Any:
        return None if data == b"damaged" else SimpleNamespace(serialize=lambda: data + b"+")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.timings = cache
        return True


def module(version: str, plan: bytes | None = b"plan", says: str = "") -> Any:
    """A TensorRT with the names that a release has; any other name fails."""
    networks: list[int] = []

    class Builder:
        max_threads = 8

        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int = 0) -> Any:
            networks.append(flags)
            return SimpleNamespace()

        def create_builder_config(self) -> Config:
            return Config()

        def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
            if says:
                self.logger.log(1, says)
            return plan

    class Logger:
        INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)

    made = SimpleNamespace(
        NetworkDefinitionCreationFlag=IntEnum("Flags", NETWORK_FLAGS[version])
        if NETWORK_FLAGS[version]
        else SimpleNamespace(),
        BuilderFlag=SimpleNamespace(**{name: name for name in BUILDER_FLAGS[version]}),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        Builder=Builder,
        ILogger=Logger,
        networks=networks,
    )
    return made


def library(version: str, **changes: Any) -> Library:
    return Library(module(version, **changes), "tensorrt", version)


@pytest.mark.parametrize(("version", "bits"), [("8.6.2", 1), ("10.3.0", 2), ("11.4.1", 0)])
def test_networks_are_typed_strongly_where_that_is_a_choice(version: str, bits: int) -> None:
    assert network_flags(module(version)) == bits


def test_only_the_oldest_release_gets_precision_flags() -> None:
    for version in ("10.3.0", "11.4.1", "1.7.1"):
        assert precision_flags(module(version), "int8") == []
    old = module("8.6.2")
    assert precision_flags(old, "fp32") == []
    assert precision_flags(old, "fp16") == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
    assert precision_flags(old, "int8")[-1] == "INT8"


@pytest.mark.parametrize("version", ["8.6.2", "10.3.0", "11.4.1"])
def test_a_configuration(version: str) -> None:
    session = Session(library(version))
    options = ConfigOptions(64 << 20, level=1, low_memory=True, version_compatible=True)
    config = session.config("fp16", options)
    assert config.pools == {"workspace": 64 << 20}
    assert "VERSION_COMPATIBLE" in config.flags
    assert (config.builder_optimization_level, config.max_aux_streams) == (1, 0)
    assert session.builder.max_threads == 1


def test_a_flag_that_a_release_lacks() -> None:
    with pytest.raises(EngineError, match=r"TensorRT 1\.7\.1 has no builder flag VERSION_COMPAT"):
        Session(library("1.7.1")).config("fp16", ConfigOptions(1 << 20, version_compatible=True))


@pytest.mark.parametrize(
    "says",
    [
        "Error Code 2: OutOfMemory (Requested size was 512 bytes.)",
        "[virtualMemoryBuffer.cpp::resize::154] Error Code 2: OutOfMemory (no memory)",
        "Cuda Runtime (out of memory)",
    ],
)
def test_memory_that_runs_out_says_what_to_lower(says: str, tmp_path: Path) -> None:
    session = Session(library("10.3.0", plan=None, says=says))
    with pytest.raises(EngineError, match=r"memory ran out while the encoder was built.*--works"):
        session.build(None, Config(), tmp_path / "timings.bin", "the encoder")
    assert not list(tmp_path.iterdir())


def test_another_failure_gives_the_reason() -> None:
    says = "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any\nx)"
    session = Session(library("10.3.0", plan=None, says=says))
    with pytest.raises(EngineError, match=r"TensorRT 10\.3\.0 does not build the decoder: .*any x"):
        session.build(None, Config(), None, "the decoder")


def test_timings_are_read_and_written(tmp_path: Path) -> None:
    path, session = tmp_path / "timings.bin", Session(library("10.3.0"))
    for expected in (b"+", b"++"):
        assert session.build(None, Config(), path, "it") == b"plan"
        assert path.read_bytes() == expected
    path.write_bytes(b"damaged")
    session.build(None, Config(), path, "it")
    assert path.read_bytes() == b"+"
    assert load_timings(library("10.3.0"), SimpleNamespace(), path) is None
    assert load_timings(Library(None, "tensorrt_rtx", "1.7.1"), Config(), path) is None


def test_what_is_built_for() -> None:
    plain = library("10.3.0")
    assert resolve_target(plain, ORIN, None) == ORIN
    assert resolve_target(plain, ORIN, "sm_87") == ORIN
    with pytest.raises(EngineError, match=r"Orin \(8\.7\), not for 8\.9; build on the device"):
        resolve_target(plain, ORIN, "sm_89")
    with pytest.raises(EngineError, match=r"there is none here; run this on the device"):
        resolve_target(plain, None, "sm_87")
    rtx_module = module("1.7.1")
    rtx_module.ComputeCapability = IntEnum("Capability", ["NONE", "CURRENT", "SM86", "SM120"])
    rtx = Library(rtx_module, "tensorrt_rtx", "1.7.1")
    assert resolve_target(rtx, None, "sm_120") == Device("", "12.0")
    assert resolve_target(rtx, ORIN, "8.6") == Device("", "8.6")
    with pytest.raises(EngineError, match=r"builds for sm_86, sm_120, not for 8\.7"):
        resolve_target(rtx, None, "sm_87")


@pytest.mark.parametrize(
    ("text", "expected"), [("sm_87", "8.7"), ("SM120", "12.0"), ("8.6", "8.6"), ("sm87", "8.7")]
)
def test_targets(text: str, expected: str) -> None:
    assert capability(text) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "bf16"}, "precision is 'bf16'; give one of fp32, fp16, int8"),
        ({"workspace": 1000}, "workspace is 1000 bytes"),
        ({"batch": (3, 2)}, r"batch is 3\.\.2"),
        ({"beams": (0, 4)}, r"beams is 0\.\.4"),
        ({"beams": (1, 33)}, r"beams is 1\.\.33"),
        ({"level": 6}, "level is 6"),
        ({"target": "orin"}, "target is 'orin'; give a compute capability such as sm_87"),
    ],
)
def test_options_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        BuildOptions(**change)


def test_profiles_of_recurrent_families() -> None:
    inputs = (
        TensorSpec("parent", "int64", ("?",)),
        TensorSpec("position", "int64", ()),
        TensorSpec("carry.h", "float16", ("?", 24)),
        TensorSpec("image", "uint8", ("?", 32, 32, 3)),
    )
    assert profile_shapes(inputs, Profile((2, 4), (1, 3)), 10) == {
        "parent": ((2,), (6,), (12,)),
        "carry.h": ((2, 24), (6, 24), (12, 24)),
        "image": ((2, 32, 32, 3), (2, 32, 32, 3), (4, 32, 32, 3)),
    }
