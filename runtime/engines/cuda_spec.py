"""What a decoder is, whatever graph it came from: sizes and float32 weights by their role.

``cuda_onnx`` finds these in a bundle's decoder graph, ``cuda_program`` turns them into the launches
of one step. Matrices are [out, in], as the kernels read them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """weight [out, in]; bias [out] or None"""

    weight: Floats
    bias: Floats | None = None

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[1])


@dataclass(frozen=True)
class Norm:
    """Layer norm: weight [d], bias [d]"""

    weight: Floats
    bias: Floats
    eps: float


@dataclass(frozen=True)
class Cross:
    """Attention over the picture's memory of this layer. scale : of the products q . k"""

    query: Linear
    out: Linear
    norm: Norm
    scale: float


@dataclass(frozen=True)
class Layer:
    """qkv gives query, key and value, [3 * d, d]; scale : of the products q . k of its own past"""

    qkv: Linear
    out: Linear
    norm: Norm
    scale: float
    cross: Cross | None
    up: Linear
    down: Linear
    feed_norm: Norm
    activation: str


@dataclass(frozen=True)
class Transform:
    """What BERT's head does before it reads words: a layer, an activation, a norm."""

    layer: Linear
    activation: str
    norm: Norm


@dataclass(frozen=True)
class TransformerSpec:
    """A causal Transformer decoder.

    words [V, d], places [P, d]; the word at step t has places[t + offset]
    before : norms stand before what they belong to (GPT-2) or after it (BERT)
    prefix : memory tokens that are a layer's first keys and values; 0 where it has none
    memory : tokens of the picture's memory; 0 without cross-attention and prefix
    memory_rows : memory lies as [B, N, d], else as [B, h, d / h, N] and [B, h, N, d / h]
    first : memory.first [B, d] stands for the first token's words
    head : [V, d], the words themselves where tied
    """

    words: Floats
    places: Floats
    offset: int
    heads: int
    before: bool
    norm_words: Norm | None
    layers: tuple[Layer, ...]
    norm: Norm | None
    transform: Transform | None
    head: Linear
    memory: int
    memory_rows: bool
    first: bool

    @property
    def vocab(self) -> int:
        return self.head.outputs

    @property
    def width(self) -> int:
        return int(self.words.shape[1])

    @property
    def crosses(self) -> bool:
        return self.layers[0].cross is not None


@dataclass(frozen=True)
class Look:
    """Additive attention of an attention LSTM over N annotations [D] with their scores [A].

    query [A + 1, H] of the state: its part of the scores, and the gate of the context
    score [A]
    from_context [G * H, D]; read_state [E, H] and read_context [E, D] of the deep output layer
    """

    places: int
    query: Linear
    score: Floats
    from_context: Linear
    read_state: Linear
    read_context: Linear


@dataclass(frozen=True)
class RecurrentSpec:
    """One LSTM or GRU over words, with a look at the picture or without.

    words [V, E]; inputs [G * H, E] and recurrent [G * H, H] with gates in torch's order; head reads
    the state [H] without a look, the deep output layer [E] with one
    """

    cell: str  # "lstm" or "gru"
    words: Floats
    inputs: Linear
    recurrent: Linear
    look: Look | None
    head: Linear

    @property
    def vocab(self) -> int:
        return self.head.outputs

    @property
    def hidden(self) -> int:
        return self.recurrent.inputs


DecoderSpec = TransformerSpec | RecurrentSpec
