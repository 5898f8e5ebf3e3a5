"""Bundles of imported captioners say what transformers' ``generate`` says, token for token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
transformers = pytest.importorskip("transformers")
pytest.importorskip("PIL")

from small_captioners import KINDS  # noqa: E402

from edgecap.export.importers import Imported, open_source  # noqa: E402
from edgecap.export.model import write_source  # noqa: E402
from edgecap.export.sources import from_imported  # noqa: E402
from edgecap.runtime.captioner import Captioner  # noqa: E402
from edgecap.runtime.image import load_image  # noqa: E402

pytestmark = pytest.mark.slow  # two graphs are exported for each family
COUNT = 50  # photographs, wide and tall


@pytest.fixture(scope="module")
def photographs(shared: Path) -> list[np.ndarray]:
    paths = sorted((shared / "data/coco_captions/images").glob("*.jpg"))[:COUNT]
    assert len(paths) == COUNT
    return [load_image(path) for path in paths]


@dataclass
class Made:
    imported: Imported
    captioner: Captioner
    source: Path


@pytest.fixture(scope="module", params=list(KINDS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A small source of each family, and the captioner of its bundle."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("source") / request.param
    folder.mkdir()
    KINDS[request.param](folder)
    imported = open_source(str(folder))
    source = from_imported(imported)
    bundle = write_source(folder.parent / "imported.edgecap", source, source.graphs())
    torch.set_num_threads(threads)
    return Made(imported, Captioner(bundle, threads=1), folder)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_tokens_are_those_of_generate(made: Made, photographs: list[np.ndarray]) -> None:
    said = {}
    for beams in (1, 4):
        theirs = made.imported.reference(photographs, beams)
        ours = made.captioner(photographs, channels="RGB", beams=beams)
        assert [list(caption.tokens) for caption in ours] == theirs
        said[beams] = theirs
    eos = made.imported.tokenizer.eos
    assert len({tuple(tokens) for tokens in said[4]}) > COUNT / 4, "captions are all alike"
    assert sum(a != b for a, b in zip(said[1], said[4], strict=True)) > COUNT / 5, (
        "beams do nothing"
    )
    assert sum(tokens[-1] == eos for tokens in said[4]) > 0
    assert any(tokens[-1] != eos for tokens in said[4]), "nothing reaches the limit"


def test_logits_are_those_of_the_source(made: Made, photographs: list[np.ndarray]) -> None:
    """Three rows a picture that share one memory, each behind its own history."""
    if made.imported.family == "clip-prefix":
        pytest.skip("no class of transformers to compare with; tokens are compared above")
    captioner, rng, beams, length = made.captioner, np.random.default_rng(1), 3, 6
    spec = made.imported.tokenizer
    pictures = photographs[:2]
    histories = rng.integers(5, spec.vocab_size - 1, (2 * beams, length))
    histories[:, 0] = spec.bos
    expected = _source_logits(made, pictures, histories)
    encoded = captioner.encode(pictures)
    runner = captioner.engine.begin(encoded, beams)
    # Rows swap places after every step: what was row k's is now looked up under another slot.
    ancestry = np.zeros((2 * beams, beams * captioner.engine.max_positions), bool)
    order = np.arange(2 * beams)
    for t in range(length):
        parents = np.arange(2 * beams)
        if t:
            moved = np.concatenate([rng.permutation(beams), beams + rng.permutation(beams)])
            ancestry, order, parents = ancestry[moved], order[moved], moved
            ancestry[np.arange(2 * beams), (t - 1) * beams + moved % beams] = True
        logits = runner.step(histories[order, t], t, parents, ancestry)
        np.testing.assert_allclose(logits, expected[order, t], atol=1e-3)
    assert expected.std() > 0.3


def _source_logits(made: Made, pictures: list[np.ndarray], histories: np.ndarray) -> Any:
    """[R, L, V] of the source's own forward pass, nothing cached."""
    folder = str(made.source)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    rows = pixels.repeat_interleave(len(histories) // len(pictures), 0)
    ids = torch.from_numpy(histories)
    family = made.imported.family
    kind = {
        "blip": transformers.BlipForConditionalGeneration,
        "git": transformers.GitForCausalLM,
    }.get(family, transformers.VisionEncoderDecoderModel)
    net = kind.from_pretrained(folder).eval()
    name = "input_ids" if family in ("blip", "git") else "decoder_input_ids"
    with torch.no_grad():
        logits = net(pixel_values=rows, **{name: ids}).logits
    return logits[:, -histories.shape[1] :].numpy()


def test_texts_are_those_of_the_source_s_tokenizer(
    made: Made, photographs: list[np.ndarray]
) -> None:
    folder = made.source / "gpt2" if made.imported.family == "clip-prefix" else made.source
    words = transformers.AutoTokenizer.from_pretrained(folder)
    for caption in made.captioner(photographs[:8], channels="RGB"):
        tokens = [t for t in caption.tokens if t != made.imported.tokenizer.eos]
        text = words.decode(tokens, skip_special_tokens=True)
        assert caption.text == " ".join(text.split())


def test_graphs_keep_the_contract(made: Made) -> None:
    files = made.captioner.manifest.graphs
    names = [spec.name for spec in files.encoder.outputs]
    assert "features" in names
    assert "novelty" not in names
    features = made.captioner.encode(np.zeros((50, 70, 3), np.uint8)).features
    np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, rtol=1e-5)
    # No image's memory is copied over beams, turned or joined to the caches at every step.
    from edgecap.runtime.bundle import read_bundle

    bundle = read_bundle(made.captioner.path)
    for file in ("encoder.onnx", "decoder.onnx"):
        model = onnx.load_from_string(bundle.files[file])
        assert model.opset_import[0].version >= 18
        onnx.checker.check_model(model, full_check=True)
    graph = onnx.load_from_string(bundle.files["decoder.onnx"]).graph
    memory = {value.name for value in graph.input if value.name.startswith("memory.")}
    memory -= {"memory.first"}
    users = {node.op_type for node in graph.node if memory & set(node.input)}
    assert users <= {"MatMul", "Shape"}
