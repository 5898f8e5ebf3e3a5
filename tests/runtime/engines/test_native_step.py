"""Own CPU steps: their captions equal ONNX Runtime's steps under the reference search."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgecap
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.caption import Caption
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.decoding.loop import Decoded, generate
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.reference import ReferenceSearch
from edgecap.runtime.engines.cuda import part
from edgecap.runtime.engines.native_step import NativeStepEngine, kernels
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.errors import EngineError, OptionsError
from edgecap.runtime.image import load_image, resize_image
from edgecap.runtime.streams.draft import REFUSED, Verifier, draft_of, sentence_scorer

sys.path.insert(0, str(Path(__file__).parents[1] / "native"))
PHOTOGRAPHS = Path(__file__).parents[4] / "shared/data/flickr8k/images"
SPECIAL = SpecialTokens(bos=1, eos=2, pad=0)
FAMILIES = (
    "image-transformer",
    "clip-gpt",
    "show-and-tell",
    "show-and-tell-gru",
    "show-attend-tell",
    "show-attend-tell-hard",
    "vit-gpt2",
    "blip",
    "git",
    "clip-prefix",
)
VARIANTS: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.4, "suppress_tokens": (0, 7)},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 3, "length_penalty": -0.5},
    {"max_new_tokens": 5, "early_stopping": True},
    {"early_stopping": "never", "length_penalty": 1.5},
]


@pytest.fixture(scope="module")
def default() -> Bundle:
    return read_bundle(Path(edgecap.__file__).parent / "models/default.edgecap")


def same(ours: Decoded, theirs: Decoded, tolerance: float = 1e-3) -> None:
    assert [[h.tokens for h in image] for image in ours.hypotheses] == [
        [h.tokens for h in image] for image in theirs.hypotheses
    ]
    for a, b in zip(ours.hypotheses, theirs.hypotheses, strict=True):
        for one, other in zip(a, b, strict=True):
            assert one.score == pytest.approx(other.score, rel=tolerance, abs=tolerance)
            assert one.logprobs == pytest.approx(other.logprobs, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_small_models_say_what_the_reference_says(family: str, tmp_path: Path) -> None:
    for package in ("torch", "onnxscript", "transformers"):
        pytest.importorskip(package)
    small = pytest.importorskip("small_decoders")
    bundle = small.make(tmp_path, family)
    theirs = OnnxEngine(bundle, threads=1)
    ours = NativeStepEngine(bundle, threads=2, precision="fp32")
    assert NativeStepEngine(bundle, threads=1).precision == "fp32"  # as its weights are
    for batch, beams in ((1, 1), (1, 4), (3, 4), (2, 16)):
        encoded = theirs.encode(small.pictures(bundle, batch))
        for variant in VARIANTS if beams == 4 else VARIANTS[:1]:
            options = DecodingOptions(
                **{"beams": beams, "max_new_tokens": small.POSITIONS, **variant}
            )
            expected = generate(theirs, encoded, options, SPECIAL, make=ReferenceSearch)
            same(generate(ours, encoded, options, SPECIAL), expected)
            if batch == 2:  # single steps under the same search, too
                same(generate(ours, encoded, options, SPECIAL, make=ReferenceSearch), expected)


def photographs(bundle: Bundle, count: int) -> np.ndarray:
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:count] if PHOTOGRAPHS.is_dir() else []
    if not files:
        pytest.skip(f"no photographs in {PHOTOGRAPHS.name}")
    return np.stack([resize_image(load_image(f), bundle.manifest.image) for f in files])


def test_the_default_model_on_photographs(default: Bundle) -> None:
    theirs, special = OnnxEngine(default, threads=1), default.manifest.tokenizer
    ids = SpecialTokens(bos=special.bos, eos=special.eos, pad=special.pad)
    encoded = theirs.encode(photographs(default, 6))
    options = DecodingOptions(beams=4, max_new_tokens=18, suppress_tokens=(0, 1, 3))
    expected = generate(theirs, encoded, options, ids)
    same(generate(NativeStepEngine(default, precision="fp32"), encoded, options, ids), expected)


def test_a_batch_changes_no_bit(default: Bundle) -> None:
    engine = NativeStepEngine(default, threads=2, precision="int8")
    encoded = engine.encode(photographs(default, 5))
    options = DecodingOptions(beams=3, max_new_tokens=18)
    together = generate(engine, encoded, options, SPECIAL).hypotheses
    for index in range(5):
        alone = generate(engine, part(encoded, index, 1), options, SPECIAL).hypotheses
        assert alone[0] == together[index]


def test_all_kernels_give_the_same_whole_numbers(default: Bundle) -> None:
    import importlib

    native = importlib.import_module("edgecap._native")
    rng = np.random.default_rng(3)
    for rows, inputs, outputs in ((1, 3, 1), (4, 384, 384), (5, 70, 145), (64, 16, 17)):
        weight = rng.normal(size=(outputs, inputs)).astype(np.float32)
        x = rng.normal(size=(rows, inputs)).astype(np.float32)
        x[0] = 1.0  # the largest sums
        w_scale, x_scale = (np.abs(a).max(1, keepdims=True) / np.float32(127) for a in (weight, x))
        expected = (
            np.rint(x / x_scale).astype(np.int64) @ np.rint(weight / w_scale).astype(np.int64).T
        )
        found = []
        for kernel in kernels():
            result = np.zeros((rows, outputs), np.int32)
            native.whole_product(weight, x, result, kernel)
            found.append(result)
        assert all(np.array_equal(found[0], other) for other in found)
        # numpy divides where the kernels multiply: a tie may fall to the other side.
        assert np.abs(found[0] - expected).max() <= 2 * 127


def test_every_kernel_and_thread_count_says_the_same(default: Bundle) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), np.uint8)
    picture = np.resize(picture, (1, *[default.manifest.image.size] * 2, 3)).astype(np.uint8)
    options = DecodingOptions(beams=4, max_new_tokens=8)
    encoded = OnnxEngine(default, threads=1).encode(picture)
    results = [
        generate(
            NativeStepEngine(default, threads=threads, precision="int8", kernel=kernel),
            encoded,
            options,
            SPECIAL,
        ).hypotheses
        for kernel in kernels()
        for threads in (1, 3)
    ]
    assert all(result == results[0] for result in results)


HELPERS = """
import os, sys
from pathlib import Path
import numpy as np
import edgecap
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.engines.native_step import NativeStepEngine

if sys.argv[1] == "one":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
allowed = os.sched_getaffinity(0)
before = set(os.listdir("/proc/self/task"))
bundle = read_bundle(Path(edgecap.__file__).parent / "models/default.edgecap")
engine = NativeStepEngine(bundle, threads=2)
side = engine.image_size
engine.encode(np.zeros((1, side, side, 3), np.uint8))
made = [int(task) for task in set(os.listdir("/proc/self/task")) - before]
assert os.sched_getaffinity(0) == allowed
masks = [os.sched_getaffinity(task) for task in made]
assert masks and all(mask <= allowed for mask in masks)
fewer = [mask for mask in masks if len(mask) == len(allowed) - 1]
assert bool(fewer) == (len(allowed) > 1), (allowed, masks)
"""


@pytest.mark.parametrize("processors", ["all", "one"])
def test_helpers_keep_off_the_callers_processor(processors: str) -> None:
    """The encoder's has run and leaves it alone; nobody's own place is changed."""
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system does not tell where threads may run")
    command = [sys.executable, "-c", HELPERS, processors]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_deadline_stops_between_steps(default: Bundle) -> None:
    engine = NativeStepEngine(default)
    encoded = engine.encode(np.zeros((1, engine.image_size, engine.image_size, 3), np.uint8))
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 2

    decoded = generate(engine, encoded, DecodingOptions(), SPECIAL, should_stop=stop)
    assert (decoded.truncated, decoded.steps, len(asked)) == (True, 2, 2)


def test_two_threads_take_turns(default: Bundle) -> None:
    captioner = edgecap.load(engine="native", threads=2)
    pictures = np.random.default_rng(2).integers(0, 256, (2, 90, 120, 3), np.uint8)
    expected = [captioner(picture, channels="RGB").tokens for picture in pictures]
    found: list[list[Any]] = [[], []]

    def work(index: int) -> None:
        for _ in range(4):
            found[index].append(captioner(pictures[index], channels="RGB").tokens)

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[expected[0]] * 4, [expected[1]] * 4]
    assert captioner.engine_choice.engine == "native"


def test_what_is_refused_says_why(default: Bundle) -> None:
    with pytest.raises(OptionsError, match="give one of int8"):
        NativeStepEngine(default, precision="int4")
    with pytest.raises(EngineError, match="no kernel"):
        NativeStepEngine(default, kernel="abacus")
    engine = NativeStepEngine(default)
    encoded = engine.encode(np.zeros((1, engine.image_size, engine.image_size, 3), np.uint8))
    runner, rows = engine.begin(encoded, 2), np.zeros(2, np.int64)
    mask = np.zeros((2, 2 * engine.max_positions), np.bool_)
    with pytest.raises(IndexError, match="position"):
        runner.step(rows, engine.max_positions, rows, mask)
    with pytest.raises(IndexError, match="vocabulary"):
        runner.step(rows + engine.vocab_size, 0, rows, mask)
    with pytest.raises(ValueError, match="rows"):
        runner.step(rows[:1].copy(), 0, rows, mask)


def test_precision_is_that_of_the_bundles_weights(
    default: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGECAP_NATIVE_PRECISION", raising=False)
    assert NativeStepEngine(default, threads=1).precision == "int8"
    monkeypatch.setenv("EDGECAP_NATIVE_PRECISION", "bf16")
    assert NativeStepEngine(default, threads=1).precision == "bf16"
    assert NativeStepEngine(default, threads=1, precision="fp32").precision == "fp32"


def test_a_draft_is_scored_with_the_bits_of_its_decoding(default: Bundle) -> None:
    captioner = Captioner(default, engine="native", threads=2)
    options = captioner.options(num_return_sequences=3)
    score = sentence_scorer(captioner)
    verifier = Verifier(captioner)
    pictures = photographs(default, 4)
    encoded = [captioner.engine.encode(picture[None]) for picture in pictures]
    captions = [captioner.decode(one, options)[0] for one in encoded]
    for index, one in enumerate(encoded):
        for found in captioner.search(one, options).hypotheses[0]:
            logprobs = score(found.tokens, one)
            own = logprobs[np.arange(len(found.tokens)), list(found.tokens)]
            assert own == pytest.approx(found.logprobs, abs=1e-4)
        draft = draft_of(captions[index], one)
        assert draft is not None
        kept = verifier.verify(draft, one, options)
        assert isinstance(kept, Caption)
        assert (kept.tokens, kept.sure) == (captions[index].tokens, captions[index].sure)
        assert kept.confidence == pytest.approx(captions[index].confidence, abs=1e-3)
        other = (index + 1) % len(encoded)
        if captions[other].tokens != captions[index].tokens:
            assert verifier.verify(draft, encoded[other], options) == REFUSED


def test_captioners_of_two_threads_do_not_meet(default: Bundle) -> None:
    pictures = np.random.default_rng(4).integers(0, 256, (2, 90, 120, 3), np.uint8)
    captioners = [Captioner(default, engine="native", threads=count) for count in (2, 1)]
    expected = [captioners[0](picture, channels="RGB") for picture in pictures]
    with ThreadPoolExecutor(2) as pool:
        work = [
            pool.submit(lambda c=c, p=p: [c(p, channels="RGB") for _ in range(4)])
            for c, p in zip(captioners, pictures, strict=True)
        ]
        found = [each.result() for each in work]
    for said, one in zip(found, expected, strict=True):
        assert [(c.tokens, c.score, c.confidence) for c in said] == [
            (one.tokens, one.score, one.confidence)
        ] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_decodes_too() -> None:
    """Own process, because pytest's has threads of other libraries; the pool's do not come along.
    The encoder's are ONNX Runtime's, which does not fork: pictures are encoded before."""
    code = """
        import os, sys
        import numpy as np
        import edgecap
        captioner = edgecap.load(engine="native", threads=2)
        size = captioner.image_size
        grey = captioner.engine.encode(np.full((1, size, size, 3), 127, np.uint8))
        expected = captioner.decode(grey)[0]
        child = os.fork()
        found = captioner.decode(grey)[0]
        same = (found.tokens, found.score) == (expected.tokens, expected.score)
        if child == 0:
            os._exit(0 if same else 3)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not same)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=60)
    assert done.returncode == 0
