"""Arrays that stay on the GPU: whose memory it is, what a slice is, when it is used again."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import tensorrt_emulation as emulation
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.engines.device_array import MOST_FREE, DeviceArray, DevicePool


@pytest.fixture
def cuda() -> Iterator[emulation.HostCuda]:
    made = emulation.HostCuda()
    with made.current():
        yield made


def put(pool: DevicePool, values: np.ndarray) -> DeviceArray:
    array = DeviceArray(pool.take(values.nbytes), values.shape, values.dtype)
    pool.cuda.upload(array.address, values)
    return array


@given(
    batch=st.integers(1, 6),
    start=st.integers(-7, 7) | st.none(),
    stop=st.integers(-7, 7) | st.none(),
    indices=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    kind=st.sampled_from(["<f4", "<f2"]),
)
def test_indices_mean_what_they_mean_in_numpy(
    batch: int, start: int | None, stop: int | None, indices: list[int], kind: str
) -> None:
    cuda = emulation.HostCuda()
    with cuda.current():
        values = np.arange(batch * 6).astype(kind).reshape(batch, 2, 3)
        array = put(DevicePool(cuda), values)
        here = slice(start, stop)
        part = array[here]
        assert isinstance(part, DeviceArray)  # a view, not a copy
        np.testing.assert_array_equal(np.asarray(part), values[here])
        np.testing.assert_array_equal(np.asarray(part[1:]), values[here][1:])
        rows = [index % batch for index in indices]
        np.testing.assert_array_equal(np.asarray(array[rows]), values[rows])
        assert np.asarray(array[0]).tolist() == values[0].tolist()
        np.testing.assert_array_equal(array[::2], values[::2])
        assert np.asarray(array, np.float64).dtype == np.float64
        there = array.__cuda_array_interface__
        assert there["typestr"] == kind
        assert there["shape"] == values.shape
        assert there["data"] == (array.address, True)
        assert array.nbytes == values.nbytes
        assert len(array) == batch


def test_memory_is_used_again_only_when_nothing_refers_to_it(cuda: emulation.HostCuda) -> None:
    pool = DevicePool(cuda)
    first = put(pool, np.zeros((2, 4), np.float32))
    view, place = first[1:], first.address
    del first
    gc.collect()
    assert put(pool, np.ones((2, 4), np.float32)).address != place  # the view still reads it
    assert np.asarray(view).tolist() == [[0.0] * 4]
    calls = cuda.calls["allocate"]
    del view
    places = {put(pool, np.ones((2, 4), np.float32)).address for _ in range(9)}
    assert place in places or len(places) == 1
    assert cuda.calls["allocate"] == calls


def test_other_sizes_do_not_pile_up(cuda: emulation.HostCuda) -> None:
    pool = DevicePool(cuda)
    for size in range(1, 40):
        put(pool, np.zeros(size, np.float32))
        assert len(cuda.blocks) <= MOST_FREE + 2
    kept = put(pool, np.zeros(3, np.float32))
    del pool  # the array outlives it
    gc.collect()
    assert np.asarray(kept).tolist() == [0.0] * 3
    del kept
    gc.collect()
    assert cuda.blocks == {}


def test_a_thread_that_lets_go_frees_nothing_itself(cuda: emulation.HostCuda) -> None:
    """The last reference may end in any thread, outside the device's context."""
    pool = DevicePool(cuda)
    held = [put(pool, np.zeros(5, np.float32))]
    place = held[0].address
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert place in cuda.blocks
    assert put(pool, np.zeros(5, np.float32)).address == place
