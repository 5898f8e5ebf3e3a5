"""ExecuTorch with XNNPACK: encoder and step of a checkpoint, under this project's beam search.

Shapes are fixed when a program is made, so the step has one for each number of beams.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bundle_search import BundleSearch, Graphs, StepBuffers, read_graphs
from protocol import serve

from edgecap.runtime.engines.base import Encoded

BEAMS = (1, 4)


class ExecuTorchEngine:
    """The contract of ``edgecap.runtime.engines.base.Engine`` over programs of fixed shapes."""

    def __init__(self, graphs: Graphs, folder: Path, threads: int) -> None:
        from executorch.extension.pybindings import portable_lib

        self.image_size, self.vocab_size = graphs.image_size, graphs.vocab_size
        self.max_positions, self._graphs = graphs.max_positions, graphs
        load = portable_lib._load_for_executorch
        programs, self._names, self._inputs = make_programs(folder, graphs, load)
        self._encoder, self._steps = programs[0], dict(zip(BEAMS, programs[1:], strict=True))

    def encode(self, images: npt.NDArray[np.uint8]) -> Encoded:
        import torch

        found = self._encoder.forward((torch.from_numpy(images),))
        return Encoded.of(
            len(images), {n: a.numpy() for n, a in zip(self._names, found, strict=True)}
        )

    def begin(self, encoded: Encoded, beams: int) -> ExecuTorchSteps:
        buffers = StepBuffers(self._graphs, encoded, beams)
        return ExecuTorchSteps(self._steps[beams], buffers, self._inputs)


class ExecuTorchSteps:
    """Steps over tensors that share memory with the buffers."""

    def __init__(self, program: Any, buffers: StepBuffers, names: list[str]) -> None:

        self._program, self._buffers = program, buffers
        self._given = given_tensors(buffers, names)

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        self._buffers.feed(tokens, position, parents, ancestry)
        found = [tensor.numpy() for tensor in self._program.forward(self._given)]
        named = dict(zip(self._buffers.outputs, found, strict=True))
        self._buffers.keep(named, position)
        return named["logits"]


def given_tensors(buffers: StepBuffers, names: list[str]) -> tuple[Any, ...]:
    """Inputs in the order of ``names``; the position is a row of one: what indexes a table by a
    number alone is not exported."""
    import torch

    arrays = [buffers.inputs[name] for name in names]
    return tuple(torch.from_numpy(array if array.ndim else array.reshape(1)) for array in arrays)


def make_programs(
    folder: Path, graphs: Graphs, load: Any
) -> tuple[list[Any], list[str], list[str]]:
    """Programs of the encoder and of each of ``BEAMS``; names of its outputs, of their inputs."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from edgecap.export.graphs import DecoderGraph, EncoderGraph
    from edgecap.training.checkpoint import load_model

    def lower(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> Any:
        with torch.no_grad():
            program = torch.export.export(module, given, strict=False)
            edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            made = edge.to_executorch()
        with tempfile.NamedTemporaryFile(suffix=".pte") as file:
            file.write(made.buffer)
            file.flush()
            return load(file.name)

    encoder = EncoderGraph(load_model(folder)[0], None).eval()
    side = graphs.image_size
    image = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    with torch.no_grad():
        encoding = encoder.model.encode(encoder.model.frozen(image))
    decoder = DecoderGraph(encoder.model, encoding).eval()
    names = encoder.output_names()
    memory = {f"memory.{name}": value.numpy() for name, value in encoding.memory.items()}
    carry = {f"carry.{name}": value.numpy() for name, value in encoding.carry.items()}
    programs = [lower(encoder, (image,))]
    for beams in BEAMS:
        buffers = StepBuffers(graphs, Encoded(1, memory, carry, None, None), beams)
        programs.append(lower(decoder, given_tensors(buffers, decoder.input_names())))
    return programs, names, decoder.input_names()


class ExecuTorch(BundleSearch):
    packages = ("executorch", "torch", "edgecap")

    def graphs_of(self, model: Path) -> Graphs:
        return read_graphs(model.with_name(model.name + "-fp32.edgecap"))

    def make(self, model: Path, threads: int) -> ExecuTorchEngine:
        return ExecuTorchEngine(self.graphs, model, threads)


if __name__ == "__main__":
    serve(ExecuTorch)
