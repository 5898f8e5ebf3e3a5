"""TensorRT's steps under the CUDA beam search; both emulated on the CPU, where nothing is recorded
and every launch runs at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_emulation as emulation
import tiny_models as tiny

from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.decoding.loop import DecodesCaptions, generate
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.engines.cuda import CudaEngine
from edgecap.runtime.engines.cuda_library import CudaLibrary
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.engines.tensorrt import TensorRTEngine
from edgecap.runtime.engines.tensorrt_loop import STEPS, TensorRTCaptions

SPECIAL = SpecialTokens(bos=tiny.BOS, eos=tiny.EOS, pad=tiny.PAD)


@pytest.fixture
def library(kernels: tuple[CudaLibrary, Any]) -> CudaLibrary:
    if kernels[0].architectures != ("emulated",):
        pytest.skip("TensorRT is emulated, a real GPU is not its device")
    return kernels[0]


def pictures(count: int, seed: int) -> np.ndarray:
    shape = (count, tiny.SIZE, tiny.SIZE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


class Recording:
    """The library with graphs: what is queued between begin and end is repeated by a launch."""

    def __init__(self, library: CudaLibrary) -> None:
        self._library = library
        self.recorded: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.launches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def queue(self, work: Callable[[], None]) -> None:
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)

    def call(self, name: str, *arguments: Any) -> Any:
        if name == "edgecap_capture_begin":
            self.recorded = []
        elif name == "edgecap_capture_end":
            assert self.recorded is not None
            number = len(self.graphs) + 1
            self.graphs[number], self.recorded = self.recorded, None
            return number
        elif name == "edgecap_capture_launch":
            self.launches += 1
            for work in self.graphs[arguments[0]]:
                work()
        elif name == "edgecap_capture_free":
            del self.graphs[arguments[0]]
        else:
            self.queue(lambda: self._library.call(name, *arguments))
        return None


def open_engine(
    library: Any, make_bundle: Callable[..., Path], folder: Path, recurrent: bool, **options: Any
) -> tuple[CudaEngine, OnnxEngine, TensorRTEngine]:
    bundle = read_bundle(make_bundle(recurrent))
    emulation.write_plans(folder, bundle)
    cuda = emulation.HostCuda()
    steps = TensorRTEngine(bundle, folder, library=emulation.library(cuda), cuda=cuda)
    engine = CudaEngine(steps, TensorRTCaptions(steps, library), **options)
    return engine, OnnxEngine(bundle, threads=1), steps


@pytest.mark.parametrize("records", [False, True], ids=["step by step", "graphs"])
@pytest.mark.parametrize("recurrent", [False, True], ids=["attention", "recurrent"])
def test_captions_equal_those_of_onnx_runtime(
    library: CudaLibrary,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    recurrent: bool,
    records: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: Any = Recording(library) if records else library
    ours, theirs, steps = open_engine(used, make_bundle, tmp_path, recurrent)
    if records:
        from edgecap.runtime.engines.tensorrt_context import PlanContext

        run = PlanContext.run

        def queued(self: PlanContext, stream: int, shapes: Any, addresses: Any) -> None:
            used.queue(lambda: run(self, stream, shapes, addresses))

        monkeypatch.setattr(PlanContext, "run", queued)
    assert isinstance(ours, DecodesCaptions)
    said = set()
    variants: list[dict[str, Any]] = [
        {},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"max_new_tokens": 5, "early_stopping": True},
    ]
    for seed, (batch, beams) in enumerate([(1, 1), (3, 2), (1, 4), (3, 2), (1, 4), (3, 2)]):
        for variant in variants:
            given = {"max_new_tokens": tiny.POSITIONS, "min_new_tokens": 3, **variant}
            options = DecodingOptions(beams=beams, num_return_sequences=beams, **given)
            images = pictures(batch, seed)
            found = generate(ours, ours.encode(images), options, SPECIAL)
            expected = generate(theirs, theirs.encode(images), options, SPECIAL)
            assert not found.truncated
            for a, b in zip(found.hypotheses, expected.hypotheses, strict=True):
                assert [h.tokens for h in a] == [h.tokens for h in b]
                assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=1e-4)
                said.add(tuple(a[0].tokens))
    assert len(said) > 3, "captions do not depend on the pictures, so their equality says little"
    if records:
        assert used.launches > 0
        del ours, theirs, steps


def test_a_deadline_ends_it_between_two_graphs(
    library: CudaLibrary, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    ours, theirs, _ = open_engine(library, make_bundle, tmp_path, False)
    options = DecodingOptions(beams=2, max_new_tokens=tiny.POSITIONS, min_new_tokens=STEPS)
    images = pictures(2, 0)
    found = generate(ours, ours.encode(images), options, SPECIAL, should_stop=lambda: True)
    wanted = generate(theirs, theirs.encode(images), options, SPECIAL, should_stop=lambda: True)
    assert found.truncated
    assert found.steps == 1
    assert [h[0].tokens for h in found.hypotheses] == [h[0].tokens for h in wanted.hypotheses]


def test_nothing_is_allocated_after_the_first_caption(
    library: CudaLibrary, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    ours, _, steps = open_engine(library, make_bundle, tmp_path, True)
    options = DecodingOptions(beams=2, max_new_tokens=tiny.POSITIONS)
    cuda: Any = steps._steps().cuda
    for seed in range(3):
        generate(ours, ours.encode(pictures(2, seed)), options, SPECIAL)
        if seed == 0:
            before = cuda.calls["allocate"], cuda.calls["pinned"]
    assert (cuda.calls["allocate"], cuda.calls["pinned"]) == before


def test_more_kinds_of_search_than_are_kept(
    library: CudaLibrary, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    ours, theirs, steps = open_engine(library, make_bundle, tmp_path, False)
    images = pictures(1, 0)
    for tokens in (3, 4, 5, 6, 7, 8, 3):
        options = DecodingOptions(beams=2, max_new_tokens=tokens)
        found = generate(ours, ours.encode(images), options, SPECIAL).hypotheses
        wanted = generate(theirs, theirs.encode(images), options, SPECIAL).hypotheses
        assert [h[0].tokens for h in found] == [h[0].tokens for h in wanted]
    (runner,) = steps._steps().runners.values()
    assert len(runner.loops) == 4
