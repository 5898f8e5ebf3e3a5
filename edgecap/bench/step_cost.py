"""Bytes, operations and launches of a decoder step of this project's own kernels.

A step of a small captioner reads every weight once, whatever it does with them: bytes over
bandwidth is the floor of its time. Floors are arithmetic, not measurements; projections add what
``devices.Device`` assumes.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecap.bench.devices import Device
from edgecap.runtime.bundle import Bundle
from edgecap.runtime.errors import OptionsError

WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
CACHE_BYTES = {"fp32": 4, "fp16": 2, "int8": 2}
TOKENS = 16


@dataclass(frozen=True)
class StepCost:
    """What one step of a decoder costs.

    weights : numbers that every step reads, whatever the rows: matrices, biases, norms
    rows : numbers that each row reads besides: its word and place
    past : numbers that a row reads for each token before it: keys and values
    memory : numbers that a picture's rows read together: keys and values of its memory
    launches : kernels of a step in this project's decoder, the choice of the beams included
    """

    name: str
    weights: int
    rows: int
    past: int
    memory: int
    launches: int

    def bytes_a_step(
        self, precision: str = "fp16", batch: int = 1, beams: int = 1, tokens: int = TOKENS
    ) -> float:
        """Bytes that a step reads at least, the mean over a caption of ``tokens``."""
        count, wide = batch * beams, CACHE_BYTES[precision]
        past = self.past * (tokens - 1) / 2
        read = self.rows * count * WEIGHT_BYTES[precision]
        return (
            self.weights * WEIGHT_BYTES[precision]
            + read
            + wide * (past * count + self.memory * batch)
        )

    def operations_a_step(self, rows: int = 1) -> int:
        """Multiply-adds of the products of ``rows`` rows."""
        return self.weights * rows

    def floor_ms(self, device: Device, tokens: int = TOKENS, **step: object) -> float:
        """The least time of a caption's decode: bytes over bandwidth."""
        size = self.bytes_a_step(tokens=tokens, **step)  # type: ignore[arg-type]
        return tokens * size / device.bandwidth / 1e6

    def projected_ms(self, device: Device, tokens: int = TOKENS, **step: object) -> float:
        """The floor at a share of the bandwidth, and a gap for every launch: a projection.

        Raises ``OptionsError`` for a device of which no share is assumed.
        """
        if device.share is None:
            raise OptionsError(f"no share of the bandwidth of {device.name} is assumed; give a GPU")
        gaps = tokens * self.launches * device.launch_us / 1e3
        return self.floor_ms(device, tokens, **step) / device.share + gaps


def transformer_cost(
    name: str, *, layers: int, width: int, hidden: int, vocab: int, crossed: int, prefix: int = 0
) -> StepCost:
    """A causal Transformer with tied words and biases.

    crossed : memory tokens of cross-attention in each layer, 0 without; their keys and values are
        computed once a picture. prefix : memory tokens that are a layer's first keys and values
    """
    block = 4 * width * width + 4 * width + 2 * width  # qkv and out, a norm
    block += 2 * width * hidden + hidden + width + 2 * width
    block += (2 * width * width + 2 * width + 2 * width) if crossed else 0
    return StepCost(
        name,
        weights=layers * block + 2 * width + vocab * width,
        rows=2 * width,
        past=2 * width * layers,
        memory=2 * width * layers * (crossed + prefix),
        launches=layers * (8 if crossed else 5) + 1,
    )


def bundle_cost(bundle: Bundle) -> StepCost:
    """Counted in a bundle's decoder. Raises ``EngineError`` for one the kernels do not run."""
    from edgecap.runtime.engines.cuda_decoder import read_decoder
    from edgecap.runtime.engines.cuda_program import Product, write_program
    from edgecap.runtime.engines.cuda_spec import TransformerSpec

    spec = read_decoder(bundle)
    program = write_program(spec)
    weights = 0
    for operation in program.operations:
        if isinstance(operation, Product):
            linear, norm = operation.linear, operation.norm
            weights += linear.weight.size + (linear.bias.size if linear.bias is not None else 0)
            weights += norm.weight.size + norm.bias.size if norm is not None else 0
    words = int(program.words.shape[1])
    if isinstance(spec, TransformerSpec):
        per_layer = 2 * spec.width * len(spec.layers)
        rows, past, memory = 2 * words, per_layer, per_layer * spec.memory
    else:
        rows, past = words + sum(program.states.values()), 0
        memory = sum(m.heads * m.places * m.depth for m in program.memories.values())
    name = bundle.manifest.name
    return StepCost(name, int(weights), rows, past, int(memory), len(program.operations))


def default_bundle() -> StepCost:
    """The sizes of the model that comes with EdgeCap; a test counts them in its graph."""
    return transformer_cost(
        "default bundle (image-transformer)",
        layers=2,
        width=384,
        hidden=1536,
        vocab=3577,
        crossed=50,
    )


def thirty_million() -> StepCost:
    """A decoder of 30 M parameters: 6 layers of width 512 with cross-attention, 10,000 words."""
    return transformer_cost(
        "30 M decoder", layers=6, width=512, hidden=2048, vocab=10_000, crossed=50
    )


def gpt2() -> StepCost:
    """GPT-2 small behind a prefix of ten tokens: 124 M parameters."""
    return transformer_cost(
        "GPT-2, 124 M", layers=12, width=768, hidden=3072, vocab=50_257, crossed=0, prefix=10
    )


MODELS = (default_bundle, thirty_million, gpt2)
