"""Kernels under test: every test that asks for ``kernels`` runs emulated, and on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kernel_library
import pytest

from edgecap.runtime.engines.cuda_library import CudaLibrary


@pytest.fixture(scope="session", params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[CudaLibrary, Any]]:
    """(library, memory). The emulated one is built once a session; the other needs a GPU."""
    if request.param == "emulated":
        yield kernel_library.open_emulated(tmp_path_factory.mktemp("kernels"))
        return
    library, cuda = kernel_library.open_real()
    with cuda.current():
        yield library, cuda
