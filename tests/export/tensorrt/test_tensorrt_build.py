"""Every family through a real TensorRT: parsed and built for GPUs that are not here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'edgecap[tensorrt-rtx]' builds them")
pytest.importorskip("onnx")

from edgecap.export.tensorrt.build import BuildOptions, ensure_engines  # noqa: E402
from edgecap.export.tensorrt.operators import operator_table  # noqa: E402
from edgecap.export.tensorrt.prepare import prepare  # noqa: E402
from edgecap.export.tensorrt.versions import ConfigOptions, Session  # noqa: E402
from edgecap.models import resolve  # noqa: E402
from edgecap.runtime.bundle import Bundle, read_bundle  # noqa: E402
from edgecap.runtime.engines.contract import check_contract  # noqa: E402
from edgecap.runtime.engines.tensorrt_library import Library  # noqa: E402
from edgecap.runtime.errors import EngineError  # noqa: E402
from edgecap.runtime.manifest import Graphs, GraphSpec  # noqa: E402

LIBRARY = Library(trt, "tensorrt_rtx", trt.__version__)
TARGETS = ("sm_86", "sm_89", "sm_120")
NAMES = ("image-transformer", "show-and-tell", "show-attend-tell", "clip-gpt")


def test_every_family_is_here(families: dict[str, Any]) -> None:
    from edgecap.training.models import FAMILIES

    assert set(NAMES) == set(families) == set(FAMILIES)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("family", NAMES)
def test_engines_of_every_family(
    families: dict[str, Any], tmp_path: Path, family: str, precision: str, target: str
) -> None:
    small = families[family]
    bundle = small.quantised if precision == "int8" else small.exact
    options = BuildOptions(precision=precision, target=target, workspace=64 << 20)
    check_engines(bundle, tmp_path, options)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_engines_of_the_default_model(tmp_path: Path, precision: str, target: str) -> None:
    options = BuildOptions(precision=precision, target=target)
    check_engines(read_bundle(resolve("default")), tmp_path, options)


def check_engines(bundle: Bundle, folder: Path, options: BuildOptions) -> None:
    """Build both, and look at what was written; the same again builds nothing."""
    made = ensure_engines(bundle, LIBRARY, None, folder, options)
    assert made.built == ("encoder", "decoder")
    tables = []
    for role, path in made.paths.items():
        sidecar = json.loads(path.with_suffix(".json").read_text())
        assert path.stat().st_size == sidecar["plan_bytes"]
        spec = getattr(bundle.manifest.graphs, role)
        assert sidecar["graph_sha256"] == bundle.manifest.files[spec.file].sha256
        assert (sidecar["gpu"], sidecar["library"]) == ("", "tensorrt_rtx")
        assert sidecar["compute_capability"].replace(".", "") == str(options.target)[3:]
        for kind in ("inputs", "outputs"):
            said = {s.name: s.shape for s in getattr(spec, kind)}
            found = {s.name: s.shape for s in getattr(made.sidecars[role], kind)}
            assert found == said
            for tensor in getattr(made.sidecars[role], kind):
                prefix = tensor.name.partition(".")[0]
                half = prefix in ("memory", "carry", "cache", "next", "append")
                fixed = {"token": "int64", "parent": "int64", "position": "int64"}
                fixed |= {"ancestry": "bool", "image": "uint8"}
                assert tensor.dtype == ("float16" if half else fixed.get(prefix, "float32"))
        tables.append(made.sidecars[role])
    # The two engines fit each other as the contract asks of two graphs.
    graphs = Graphs(*(GraphSpec(t.role, t.inputs, t.outputs) for t in tables))
    from msgspec import structs

    check_contract(structs.replace(bundle.manifest, graphs=graphs))
    assert not list(folder.glob(".*")), "a temporary file was left"
    again = ensure_engines(bundle, LIBRARY, None, folder, options)
    assert again.built == ()
    assert again.paths == made.paths


def test_what_is_built_again(families: dict[str, Any], tmp_path: Path) -> None:
    bundle = families["show-and-tell"].exact
    options = BuildOptions(target="sm_86")
    made = ensure_engines(bundle, LIBRARY, None, tmp_path, options)
    made.paths["decoder"].write_bytes(b"cut")
    assert ensure_engines(bundle, LIBRARY, None, tmp_path, options).built == ("decoder",)
    made.paths["encoder"].with_suffix(".json").write_text("{")
    assert ensure_engines(bundle, LIBRARY, None, tmp_path, options).built == ("encoder",)
    for other in (BuildOptions(target="sm_89"), BuildOptions(target="sm_86", beams=(1, 2))):
        assert len(ensure_engines(bundle, LIBRARY, None, tmp_path, other).built) == 2
    built = ensure_engines(bundle, LIBRARY, None, tmp_path, options, again=True).built
    assert built == ("encoder", "decoder")


def test_the_profile_is_what_the_network_needs(families: dict[str, Any]) -> None:
    """Without it, or with shapes that contradict each other, TensorRT builds nothing."""
    from edgecap.export.tensorrt.build import profile_shapes
    from edgecap.runtime.engines.tensorrt_plan import Profile

    bundle = families["image-transformer"].exact
    session = Session(LIBRARY)
    network = session.parse(prepare(bundle, "fp16")["decoder"].SerializeToString(), "decoder.onnx")
    inputs, _ = session.table(network)
    shapes = profile_shapes(inputs, Profile((1, 8), (1, 4)), 8)
    assert shapes["token"] == ((1,), (4,), (32,))
    assert shapes["ancestry"] == ((1, 8), (4, 32), (32, 32))
    assert shapes["cache.key.0"] == ((1, 8, 48), (1, 32, 48), (8, 32, 48))
    memory = network.get_input([i.name for i in inputs].index("memory.key.0")).shape
    assert [shape[0] for shape in shapes["memory.key.0"]] == [1, 1, 8]
    assert all(shape[1:] == tuple(memory)[1:] for shape in shapes["memory.key.0"])
    assert "position" not in shapes
    config = session.config("fp16", ConfigOptions(workspace=64 << 20, target="8.6"))
    with pytest.raises(EngineError, match=r"does not build the decoder: .*optimization profile"):
        session.build(network, config, None, "the decoder")


def test_an_operator_that_is_not_parsed_is_named(families: dict[str, Any]) -> None:
    graphs = prepare(families["show-and-tell"].exact, "fp32")
    node = next(n for n in graphs["decoder"].graph.node if n.op_type == "Tanh")
    node.op_type, node.name, node.domain = "MatMulNBits", "odd_one", "com.microsoft"
    session = Session(LIBRARY)
    with pytest.raises(EngineError, match=r"does not parse decoder\.onnx: node odd_one") as caught:
        session.parse(graphs["decoder"].SerializeToString(), "decoder.onnx")
    assert "\n" not in str(caught.value)


def test_what_a_bundle_says_is_not_what_tensorrt_parses(families: dict[str, Any]) -> None:
    """Why graphs are spelt anew: the bundle's own encoder is refused."""
    bundle = families["image-transformer"].quantised
    with pytest.raises(EngineError, match=r"does not parse encoder\.onnx"):
        Session(LIBRARY).parse(bundle.files["encoder.onnx"], "encoder.onnx")


def test_every_operator_of_the_table_is_known_to_a_later_parser() -> None:
    session = Session(LIBRARY)
    parser = trt.OnnxParser(session.builder.create_network(0), session.log.logger)
    unknown = [name for name in operator_table().operators if not parser.supports_operator(name)]
    assert unknown == ["DeformConv"]  # a plugin, which TensorRT for RTX comes without


def test_no_int8_without_quantised_layers(families: dict[str, Any], tmp_path: Path) -> None:
    options = BuildOptions(precision="int8", target="sm_86")
    with pytest.raises(EngineError, match=r"no quantised layers; give --precision fp16"):
        ensure_engines(families["clip-gpt"].exact, LIBRARY, None, tmp_path / "new", options)
    assert not list((tmp_path / "new").iterdir())


def test_targets(families: dict[str, Any], tmp_path: Path) -> None:
    bundle = families["show-and-tell"].exact
    for target in ("sm_87", None):
        with pytest.raises(EngineError, match=r"builds for sm_75, .*sm_121, .*--target"):
            ensure_engines(bundle, LIBRARY, None, tmp_path, BuildOptions(target=target))
