"""Memory of the GPU through the real cuda-python and PyCUDA, over a driver in this machine's own.

No GPU and no kernel: what is shown is that the calls, their types, contexts, streams and errors are
right. ``tests/cuda_driver.c`` refuses what a driver refuses.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from emulated_driver import EmulatedDriver, build

from edgecap.runtime.engines import cuda_memory
from edgecap.runtime.engines.cuda_memory import driver_problem, find_device, open_cuda
from edgecap.runtime.errors import EngineError, MissingExtraError

PACKAGES = {"cuda-python": "cuda", "pycuda": "pycuda"}
needs_no_driver = pytest.mark.skipif(not driver_problem(), reason="this machine has a CUDA driver")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> EmulatedDriver:
    return build(tmp_path_factory.mktemp("driver"))


@pytest.fixture(params=list(PACKAGES))
def binding(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{name} is not installed")
    return name


def test_bytes_go_there_and_back(driver: EmulatedDriver, binding: str) -> None:
    out = driver.run(
        """
        import numpy as np
        from edgecap.runtime.engines.cuda_memory import open_cuda
        cuda = open_cuda()
        with cuda.current():
            before = cuda.memory()
            a, b = cuda.allocate(24), cuda.allocate(0)
            sent, back = np.arange(6, dtype=np.float32), np.ones(6, np.float32)
            cuda.download(back, a)
            cuda.synchronize()
            assert not back.any(), "memory is not full of zeros"
            cuda.upload(a, sent)
            cuda.copy(a, a + 12, 12)
            cuda.download(back, a)
            cuda.synchronize()
            cuda.free(a)
            cuda.free(b)
            assert cuda.memory() == before
        print(type(cuda).__name__, back.tolist(), cuda.device)
        """,
        binding,
    )
    kind = {"cuda-python": "CudaPython", "pycuda": "PyCuda"}[binding]
    assert out.startswith(f"{kind} [3.0, 4.0, 5.0, 3.0, 4.0, 5.0] ")
    assert "'Emulated GPU', compute_capability='8.7', driver='12.6', processors=8" in out
    assert "integrated=False" in out


def test_pinned_memory(driver: EmulatedDriver, binding: str) -> None:
    out = driver.run(
        """
        import numpy as np
        from edgecap.runtime.engines.cuda_memory import open_cuda
        cuda = open_cuda()
        with cuda.current():
            asked = (((2, 3), "float16"), ((), "int64"), ((0, 4), "int8"))
            pinned = [cuda.pinned(shape, dtype) for shape, dtype in asked]
            a = cuda.allocate(12)
            pinned[0].array[:] = 7
            cuda.copy(a, pinned[0].address, 12)  # the device sees what the host wrote
            cuda.upload(a, pinned[0].array)
            pinned[0].array[:] = 0
            cuda.download(pinned[0].array, a)
            cuda.synchronize()
            print(pinned[0].array.tolist(), [p.array.shape for p in pinned], pinned[1].array)
            for p in pinned:
                cuda.free_pinned(p)
            cuda.free(a)
            assert cuda.memory()[0] == cuda.memory()[1]
        print(cuda.device.integrated)
        """,
        binding,
        EMULATED_GPU_INTEGRATED="1",
    )
    assert out.splitlines() == ["[[7.0, 7.0, 7.0], [7.0, 7.0, 7.0]] [(2, 3), (), (0, 4)] 0", "True"]


def test_a_full_memory_says_how_much_was_needed(driver: EmulatedDriver, binding: str) -> None:
    out = driver.run(
        """
        from edgecap.runtime.engines.cuda_memory import open_cuda
        from edgecap.runtime.errors import EngineError
        cuda = open_cuda()
        with cuda.current():
            held = cuda.allocate(20_000_000)
            for ask, much in ((cuda.allocate, 900_000_000), (cuda.pinned, 300_000_000)):
                try:
                    ask(much) if ask == cuda.allocate else ask((much,), "u1")
                except EngineError as error:
                    print(error)
        """,
        binding,
        EMULATED_GPU_MEMORY="100000000",
    )
    lines = out.splitlines()
    assert lines[0].startswith(
        "the GPU's memory is full: 900 MB were needed; 80 MB of 100 MB are free. Close other "
    )
    assert lines[1].startswith("the pinned memory is full: 300 MB were needed; 80 MB of 100 MB")


def test_a_threads_own_context_stays_current(driver: EmulatedDriver) -> None:
    """Two contexts in one process: torch's or a user's is found again after every call."""
    out = driver.run(
        """
        from cuda.bindings import driver
        from edgecap.runtime.engines.cuda_memory import open_cuda
        own = driver.CUcontext(4096)
        driver.cuCtxPushCurrent(own)
        cuda = open_cuda()
        with cuda.current(), cuda.current():
            inside = int(driver.cuCtxGetCurrent()[1])
        try:
            with cuda.current():
                raise KeyError
        except KeyError:
            pass
        print(inside not in (0, 4096), int(driver.cuCtxGetCurrent()[1]))
        """
    )
    assert out.split() == ["True", "4096"]


def test_each_thread_and_each_stream(driver: EmulatedDriver, binding: str) -> None:
    out = driver.run(
        """
        import threading
        import numpy as np
        from edgecap.runtime.engines.cuda_memory import open_cuda
        first, failed = open_cuda(), []
        def work(cuda, number):
            try:
                for _ in range(50):
                    with cuda.current():
                        a = cuda.allocate(400)
                        sent, back = np.full(100, number, np.float32), np.empty(100, np.float32)
                        cuda.upload(a, sent)
                        cuda.download(back, a)
                        cuda.synchronize()
                        cuda.free(a)
                    assert (back == number).all()
            except Exception as error:
                failed.append(error)
        streams = [first, first.another(), first.another(), open_cuda()]
        threads = [threading.Thread(target=work, args=(c, n)) for n, c in enumerate(streams)]
        for t in threads: t.start()
        for t in threads: t.join()
        try:
            first.allocate(4)  # outside: this thread has no context
            failed.append("no context was asked for")
        except Exception:
            pass
        print(failed, len({c.stream for c in streams}))
        """,
        binding,
    )
    assert out.split() == ["[]", "4"]


def test_streams_end_with_what_holds_them(driver: EmulatedDriver, binding: str) -> None:
    """A model that is loaded again and again must not leave streams behind."""
    out = driver.run(
        """
        import ctypes, gc
        from edgecap.runtime.engines.cuda_memory import open_cuda
        count = ctypes.CDLL("libcuda.so.1").emulated_streams
        first = open_cuda()
        for _ in range(5):
            first.another()
        gc.collect()
        print(count())
        del first
        gc.collect()
        print(count())
        """,
        binding,
    )
    assert out.split() == ["1", "0"]


def test_a_call_that_fails_is_named(driver: EmulatedDriver) -> None:
    out = driver.run(
        """
        import numpy as np
        from edgecap.runtime.engines.cuda_memory import open_cuda
        from edgecap.runtime.errors import EngineError
        cuda = open_cuda()
        with cuda.current():
            try:
                cuda.upload(1 << 40, np.zeros(4))
            except EngineError as error:
                print(error)
        """
    )
    assert out == "cuMemcpyHtoDAsync failed: CUDA_ERROR_INVALID_VALUE\n"


@needs_no_driver
def test_without_a_driver() -> None:
    assert "no CUDA driver on this machine" in driver_problem()
    assert find_device() is None
    if importlib.util.find_spec("cuda") is not None:
        with pytest.raises(EngineError, match="no CUDA driver"):
            open_cuda()


def test_no_package_that_asks_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "cuda.bindings", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match="needs cuda-python or PyCUDA"):
        open_cuda()
    assert find_device() is None


def test_sizes_and_versions_in_words() -> None:
    sizes = (150_000, 2_500_000, 12_000_000, 3_000_000_000)
    assert [cuda_memory.megabytes(size) for size in sizes] == [
        *("0.15 MB", "2.5 MB", "12 MB", "3000 MB")
    ]
    assert [cuda_memory.cuda_version(n) for n in (12020, 12060, 13010)] == ["12.2", "12.6", "13.1"]


def test_the_emulation_is_not_shipped() -> None:
    assert not list(Path(cuda_memory.__file__).parent.glob("*emul*"))
