"""The C interface refuses what the kernels cannot take, and the loader says what to do."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beam_drivers import SPECIAL
from device_searches import Device, Kernels
from edgecap._native import BeamConfig, BeamPlaces
from kernel_library import HostCuda

from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.decoding.reference import ReferenceSearch
from edgecap.runtime.engines import cuda_library
from edgecap.runtime.engines.cuda_library import CudaLibrary, beam_config
from edgecap.runtime.errors import EngineError


def config(**changes: Any) -> BeamConfig:
    made = beam_config(1, 50, 8, DecodingOptions(beams=4, max_new_tokens=8), SPECIAL)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "1 to 64"),
        ({"batch": 65}, "1 to 64"),
        ({"beams": 0}, "1 to 16"),
        ({"beams": 17}, "1 to 16"),
        ({"vocab": 1}, "2 to 262144"),
        ({"vocab": 262145}, "2 to 262144"),
        ({"positions": 0}, "1 to 1024"),
        ({"positions": 1025}, "1 to 1024"),
        ({"max_new_tokens": 9}, "max_new_tokens"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"min_new_tokens": 9}, "min_new_tokens"),
        ({"min_new_tokens": -1}, "min_new_tokens"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty"),
        ({"length_penalty": 11.0}, "length_penalty"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"early_stopping": 3}, "early_stopping"),
        ({"eos": 50}, "eos"),
        ({"bos": -1}, "bos"),
        ({"parts": 4097}, "parts"),
        ({"multiprocessors": -1}, "multiprocessors"),
    ],
)
def test_wrong_configurations(kernels: Kernels, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        kernels[0].call("edgecap_beam_layout", config(**changes), BeamPlaces())


def test_wrong_pointers_and_numbers(kernels: Kernels) -> None:
    library, cuda = kernels
    made, places = config(), BeamPlaces()
    library.call("edgecap_beam_layout", made, places)
    memory = cuda.allocate(places.state_bytes + 256)
    logits = cuda.allocate(4 * 4 * 50 + 4)
    step = "edgecap_beam_step"
    try:
        size = places.state_bytes
        library.call("edgecap_beam_init", made, memory, size, cuda.stream)
        for wrong, message in [
            (("edgecap_beam_layout", None, places), "null"),
            (("edgecap_beam_layout", made, None), "null"),
            (("edgecap_beam_init", made, memory, size - 1, cuda.stream), "smaller"),
            (("edgecap_beam_init", made, memory + 128, size, cuda.stream), "aligned"),
            (("edgecap_beam_init", made, None, size, cuda.stream), "null"),
            ((step, made, memory, None, 0, 50, cuda.stream), "null"),
            ((step, made, memory, logits + 2, 0, 50, cuda.stream), "aligned"),
            ((step, made, memory, logits + 1, 1, 50, cuda.stream), "aligned"),
            ((step, made, memory, logits, 3, 50, cuda.stream), "float32"),
            ((step, made, memory, logits, -1, 50, cuda.stream), "float32"),
            ((step, made, memory, logits, 0, 49, cuda.stream), "row_stride"),
            ((step, made, memory, logits, 0, -50, cuda.stream), "row_stride"),
            (("edgecap_beam_results", made, memory, 5, logits, cuda.stream), "count"),
            (("edgecap_beam_results", made, memory, 0, logits, cuda.stream), "count"),
            (("edgecap_beam_results", made, memory, 1, None, cuda.stream), "null"),
            (("edgecap_beam_poll", made, memory, None, cuda.stream), "null"),
        ]:
            with pytest.raises(EngineError, match=message):
                library.call(*wrong)
        suppress = config(suppress_tokens=[-1])
        with pytest.raises(EngineError, match="suppress_tokens"):
            library.call("edgecap_beam_init", suppress, memory, size, cuda.stream)
        library.call(step, made, memory, logits + 4, 0, 50, cuda.stream)
        cuda.synchronize()
    finally:
        cuda.free(memory)
        cuda.free(logits)


def test_messages(kernels: Kernels) -> None:
    message = kernels[0].kernels.edgecap_cuda_message
    words = {message(code) for code in range(21)}
    assert len(words) == 21
    assert message(777) == "unknown error code 777"
    assert message(1002).startswith("CUDA error 2: ")
    kernels[0].check_device()


@pytest.mark.parametrize(
    ("batch", "beams", "vocab", "multiprocessors", "parts"),
    [
        (1, 4, 50257, 8, 6),
        (1, 4, 50257, 132, 50),
        (16, 4, 50257, 132, 7),
        (64, 16, 50257, 8, 1),
        (1, 1, 2982, 132, 3),
        (1, 4, 2982, 8, 3),
        (1, 16, 2, 132, 1),
    ],
)
def test_the_split_follows_the_device(
    kernels: Kernels, batch: int, beams: int, vocab: int, multiprocessors: int, parts: int
) -> None:
    made = config(batch=batch, beams=beams, vocab=vocab, multiprocessors=multiprocessors)
    places = BeamPlaces()
    kernels[0].call("edgecap_beam_layout", made, places)
    assert places.parts == parts
    assert places.ancestry == 2**64 - 1


def test_the_emulated_device_has_the_processors_it_is_told(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels[0].architectures != ("emulated",):
        pytest.skip("a GPU has the processors it has")
    found = []
    for processors in ("8", "132"):
        monkeypatch.setenv("EDGECAP_EMULATED_SMS", processors)
        places = BeamPlaces()
        kernels[0].call("edgecap_beam_layout", config(vocab=50257), places)
        found.append(places.parts)
    assert found == [6, 50]


def test_two_threads_decode_at_once(kernels: Kernels) -> None:
    options = DecodingOptions(beams=3, max_new_tokens=5, num_return_sequences=3)
    failures: list[BaseException] = []

    def decode(seed: int) -> None:
        try:
            rng = np.random.default_rng(seed)
            reference = ReferenceSearch(1, 90, 5, options, SPECIAL)
            memory = HostCuda() if kernels[0].architectures == ("emulated",) else kernels[1]
            with memory.current():
                device = Device((kernels[0], memory), 1, 90, 5, options, SPECIAL, parts=2)
                for _ in range(3):
                    logits = rng.normal(size=(3, 90)).astype(np.float32)
                    reference.step(logits)
                    device.step(logits, "float32")
                    device.assert_state(reference)
                device.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=decode, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_nothing_is_allocated_after_construction(kernels: Kernels) -> None:
    library, cuda = kernels
    counted = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            if name == "allocate":
                counted.append(name)
            return getattr(cuda, name)

    device = Device(
        (library, Counting()), 1, 40, 4, DecodingOptions(beams=2, max_new_tokens=4), SPECIAL
    )
    assert len(counted) == 2  # the state, and the test's own logits
    while not device.step(np.zeros((2, 40), np.float32), "float32"):
        pass
    device.search.finish()
    device.search.reset()
    assert len(counted) == 2
    device.close()


def test_a_missing_or_wrong_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECAP_CUDA_LIBRARY", str(tmp_path / "absent.so"))
    with pytest.raises(EngineError, match="EDGECAP_CUDA_LIBRARY"):
        cuda_library.find_library()
    wrong = tmp_path / "wrong.so"
    wrong.write_text("not a library")
    monkeypatch.setenv("EDGECAP_CUDA_LIBRARY", str(wrong))
    assert cuda_library.find_library() == wrong
    with pytest.raises(EngineError, match="does not load"):
        CudaLibrary(wrong)
    with pytest.raises(EngineError, match="float64"):
        cuda_library.CudaBeamSearch.step(None, 0, "float64")  # type: ignore[arg-type]
