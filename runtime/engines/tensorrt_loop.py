"""Whole captions by TensorRT's decoder steps under the CUDA beam search, for decoders that the CUDA
kernels do not compute themselves.

The search keeps tokens, parents, position and ancestry on the device, where the steps read them. A
few steps are one CUDA graph; between two graphs the host looks whether the search is over.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from edgecap.runtime.decoding.loop import Decoded
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.engines.base import Encoded
from edgecap.runtime.engines.cuda_library import CudaBeamSearch, CudaLibrary
from edgecap.runtime.engines.tensorrt import TensorRTEngine, TensorRTStepRunner
from edgecap.runtime.errors import EngineError

STEPS = 4  # in a graph; even, for the recurrent state goes to and fro between two buffers
# What the search keeps for engines of either width of integers.
KEPT = {
    "token": {"int64": "tokens64", "int32": "tokens"},
    "parent": {"int64": "parents64", "int32": "parents"},
    "position": {"int64": "position64", "int32": "control"},
    "ancestry": {"bool": "ancestry"},
}


class TensorRTCaptions:
    """Decodes whole captions; ``DecodesCaptions`` for ``CudaEngine``.

    engine : its decoder's plan gives the steps
    library : the CUDA kernels of the search
    """

    def __init__(self, engine: TensorRTEngine, library: CudaLibrary) -> None:
        self._engine, self._library = engine, library
        with engine.cuda.current():
            library.check_device()

    def decode(
        self,
        encoded: Encoded,
        options: DecodingOptions,
        special: SpecialTokens,
        *,
        should_stop: Callable[[], bool] | None = None,
    ) -> Decoded:
        """The meaning of ``generate``. ``should_stop`` is asked between two graphs."""
        start = perf_counter()
        runner = self._engine.begin(encoded, options.beams)
        with runner.lock, runner.cuda.current():
            loop = runner.loops.get((options, special))
            if loop is None:
                loop = CaptionLoop(runner, self._library, self._engine, options, special)
                runner.keep((options, special), loop)
            truncated = loop.run(should_stop)
            hypotheses = loop.search.finish()
            runner.let_go()
        spent = (perf_counter() - start) * 1e3
        return Decoded(hypotheses, spent, spent, loop.search.position, truncated)


class CaptionLoop:
    """One kind of search over one runner's steps. Calls stand inside the runner's lock and context.

    The first caption queues step by step, as TensorRT wants it before a capture; its steps are then
    recorded. Where launches cannot be recorded it stays so.
    """

    def __init__(
        self,
        runner: TensorRTStepRunner,
        library: CudaLibrary,
        engine: TensorRTEngine,
        options: DecodingOptions,
        special: SpecialTokens,
    ) -> None:
        self._runner, self._library = runner, library
        self._limit = min(options.max_new_tokens, engine.max_positions)
        self._graph = 0
        self._captures = True
        self.search = CudaBeamSearch(
            library,
            runner.cuda,
            runner.batch,
            engine.vocab_size,
            engine.max_positions,
            options,
            special,
            ancestry=True,
        )
        self._places = [
            {**addresses, **self._of_search(addresses)} for addresses in runner.addresses
        ]

    def run(self, should_stop: Callable[[], bool] | None) -> bool:
        """Search until it is over; whether ``should_stop`` ended it before."""
        self.search.reset()
        done = 0
        while done < self._limit:
            # A step past the last position would read past the table of places.
            graph = bool(self._graph) and done + STEPS <= self._limit
            if graph:
                stream = self._runner.cuda.stream
                self._library.call("edgecap_capture_launch", self._graph, stream)
            else:
                self._step(done)
            done += STEPS if graph else 1
            if not self.search.going():
                break
            if should_stop is not None and should_stop():
                return True
        if not self._graph and self._captures:
            self._capture()
        return False

    def close(self) -> None:
        """Free the graph and the search."""
        if self._graph:
            self._library.call("edgecap_capture_free", self._graph)
            self._graph = 0
        self.search.close()

    def _of_search(self, addresses: dict[str, int]) -> dict[str, int]:
        found = {}
        for name, kept in KEPT.items():
            if name not in addresses:
                continue
            kind = self._runner.dtype(name)
            if kind not in kept:
                raise EngineError(f"the engine's {name} is {kind}; give {' or '.join(kept)}")
            found[name] = self.search.address(kept[kind])
        return found

    def _step(self, position: int) -> None:
        """Queue one step of model and search."""
        places = self._places[position % len(self._places)]
        self._runner.queue(places)
        stream = self._runner.cuda.stream
        for name, row_bytes in self._runner.appends():
            cache = places["cache." + name.removeprefix("append.")]
            rows = places[name]
            self._library.call(
                "edgecap_beam_append",
                self.search.config,
                self.search.state,
                rows,
                cache,
                row_bytes,
                stream,
            )
        self.search.step(places["logits"], self._runner.dtype("logits"))

    def _capture(self) -> None:
        """Record STEPS steps; without graphs captions go on step by step."""
        stream = self._runner.cuda.stream
        try:
            self._library.call("edgecap_capture_begin", stream)
        except EngineError:
            self._captures = False
            return
        try:
            for position in range(STEPS):
                self._step(position)
        except EngineError:
            self._captures = False
        try:
            self._graph = self._library.call("edgecap_capture_end", stream)
        except EngineError:
            self._captures = False
        if not self._captures and self._graph:
            self._library.call("edgecap_capture_free", self._graph)
            self._graph = 0
