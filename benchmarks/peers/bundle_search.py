"""A bundle's graphs in somebody else's runtime, under this project's beam search.

What such a peer file needs: the graphs, the buffers of a decode as the graph contract names them
(docs/bundle.md), and ``caption``. Runs in environments that see this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.decoding.loop import generate
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.engines.base import Encoded, Engine
from edgecap.runtime.manifest import DecodingDefaults, TensorSpec


@dataclass(frozen=True)
class Graphs:
    """Two ONNX files of a bundle and what their names and shapes are."""

    encoder: bytes
    decoder: bytes
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    image_size: int
    vocab_size: int
    max_positions: int
    special: SpecialTokens
    decoding: DecodingDefaults


def read_graphs(path: Path) -> Graphs:
    """Of the bundle at ``path``."""
    from edgecap.runtime.bundle import read_bundle

    bundle = read_bundle(path)
    manifest = bundle.manifest
    tokens = manifest.tokenizer
    return Graphs(
        encoder=bundle.files[manifest.graphs.encoder.file],
        decoder=bundle.files[manifest.graphs.decoder.file],
        inputs={spec.name: spec for spec in manifest.graphs.decoder.inputs},
        outputs={spec.name: spec for spec in manifest.graphs.decoder.outputs},
        image_size=manifest.image.size,
        vocab_size=tokens.vocab_size,
        max_positions=manifest.max_positions,
        special=SpecialTokens(bos=tokens.bos, eos=tokens.eos, pad=tokens.pad),
        decoding=manifest.decoding,
    )


class StepBuffers:
    """Inputs of one decode of B pictures with K beams; all stay where they are."""

    def __init__(self, graphs: Graphs, encoded: Encoded, beams: int) -> None:
        batch, steps = encoded.batch, graphs.max_positions
        rows, slots = batch * beams, beams * steps
        fixed: dict[str, tuple[int, ...]] = {
            "token": (rows,),
            "position": (),
            "parent": (rows,),
            "ancestry": (rows, slots),
        }
        self.inputs: dict[str, npt.NDArray[Any]] = {}
        for name, spec in graphs.inputs.items():
            kind = name.partition(".")[0]
            if kind == "memory":
                self.inputs[name] = np.ascontiguousarray(encoded.memory[name])
            elif kind == "carry":
                self.inputs[name] = np.repeat(encoded.carry[name], beams, axis=0)
            elif kind == "cache":
                rest = tuple(int(side) for side in spec.shape[2:])
                self.inputs[name] = np.zeros((batch, slots, *rest), np.dtype(spec.dtype))
            else:
                self.inputs[name] = np.zeros(fixed[name], np.dtype(spec.dtype))
        self.outputs = tuple(graphs.outputs)
        self._shape = (batch, steps, beams)

    def feed(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> None:
        given = {"token": tokens, "position": position, "parent": parents, "ancestry": ancestry}
        for name, value in given.items():
            if name in self.inputs:
                self.inputs[name][...] = value

    def keep(self, outputs: Mapping[str, npt.NDArray[Any]], position: int) -> None:
        """Put what step ``position`` gave where the next step reads it."""
        batch, steps, beams = self._shape
        for name, value in outputs.items():
            kind, _, rest = name.partition(".")
            if kind == "append":
                cache = self.inputs["cache." + rest]
                slots = cache.reshape(batch, steps, beams, *cache.shape[2:])
                slots[:, position] = value.reshape(batch, beams, *value.shape[1:])
            elif kind == "next":
                self.inputs["carry." + rest][...] = value


class BundleSearch:
    """A peer whose engine is another's runtime and whose beam search is this project's."""

    packages: tuple[str, ...] = ("edgecap",)
    variant = ""

    def make(self, model: Path, threads: int) -> Engine:
        raise TypeError(f"{type(self).__name__} has no engine")

    def graphs_of(self, model: Path) -> Graphs:
        return read_graphs(model)

    def load(self, model: Path, threads: int) -> None:
        self.graphs = self.graphs_of(model)
        self.engine = self.make(model, threads)

    def caption(self, pixels: np.ndarray, beams: int, tokens: int) -> list[int]:
        found = generate(
            self.engine,
            self.engine.encode(pixels[None]),
            search_options(self.graphs.decoding, beams, tokens),
            self.graphs.special,
        )
        self.step_ms = found.step_ms / found.steps
        return list(found.hypotheses[0][0].tokens)


def search_options(decoding: DecodingDefaults, beams: int, tokens: int) -> DecodingOptions:
    """Exactly ``tokens`` tokens, all else as the bundle decodes."""
    fields = DecodingOptions.__dataclass_fields__
    given = {name: getattr(decoding, name) for name in decoding.__struct_fields__ if name in fields}
    given |= {"beams": beams, "max_new_tokens": tokens, "min_new_tokens": tokens}
    return DecodingOptions(**given)
