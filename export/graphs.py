"""The two graphs of a caption model as torch modules with the contract's inputs and outputs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from edgecap.training.models.base import CaptionModel, Encoding, Named, Step
from edgecap.training.models.encoders.base import Frozen


class Exportable(Protocol):
    """What a torch module must have to become the two graphs: every ``CaptionModel``, and every
    captioner that is imported. Methods are those of :class:`CaptionModel`.

    image_size : S
    options : has ``vocab_size``, V, and ``max_positions``, T
    """

    @property
    def image_size(self) -> int: ...

    @property
    def options(self) -> Any: ...

    def frozen(self, pixels: torch.Tensor) -> Frozen: ...

    def encode(self, frozen: Frozen) -> Encoding: ...

    def step(
        self,
        tokens: torch.Tensor,
        position: torch.Tensor,
        ancestry: torch.Tensor,
        memory: Named,
        carry: Named,
        cache: Named,
    ) -> Step: ...

    def cache_widths(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class NoveltyHead:
    """How little a picture's pooled features look like a photograph's: a linear discriminant.

    Distance from the mean feature does not tell: a black frame or noise excites little and lies
    nearer to the mean than most photographs do.

    weight float32 [F]; bias float32 []; novelty = features @ weight + bias
    """

    weight: torch.Tensor
    bias: torch.Tensor

    @staticmethod
    def fit(photographs: torch.Tensor, others: torch.Tensor, ridge: float = 1e-3) -> NoveltyHead:
        """Ridge-penalised logistic regression on pooled features, float32 [N, F] each.

        Novelty is the log-odds of being no photograph, moved so that the median photograph has 0.
        """
        x = torch.cat([photographs, others]).double()
        mean, spread = x.mean(0), x.std(0) + 1e-3
        x = (x - mean) / spread
        y = torch.cat([torch.zeros(len(photographs)), torch.ones(len(others))]).double()
        beta = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([beta], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            odds = x @ beta[1:] + beta[0]
            value = nn.functional.binary_cross_entropy_with_logits(odds, y)
            value = value + ridge * beta[1:].square().sum()
            torch.autograd.backward(value)
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        weight = beta.detach()[1:] / spread
        bias = -(photographs.double() @ weight).median()
        return NoveltyHead(weight.float(), bias.float())


class EncoderGraph(nn.Module):
    """image uint8 [B, S, S, 3] -> memory.*, carry.*, features, and novelty where it has a head."""

    novelty_weight: torch.Tensor
    novelty_bias: torch.Tensor

    def __init__(self, model: Exportable, novelty: NoveltyHead | None) -> None:
        super().__init__()
        self.model = fold_batch_norms(model) if isinstance(model, CaptionModel) else model
        self.has_novelty = novelty is not None
        if novelty is not None:
            self.register_buffer("novelty_weight", novelty.weight)
            self.register_buffer("novelty_bias", novelty.bias)
        # The names are those of a real encoding: families differ in what they give.
        size = model.image_size
        with torch.no_grad():
            self.example = self.model.encode(
                self.model.frozen(torch.zeros(1, size, size, 3, dtype=torch.uint8))
            )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        encoding = self.model.encode(self.model.frozen(image))
        given = (
            *encoding.memory.values(),
            *encoding.carry.values(),
            nn.functional.normalize(encoding.pooled, dim=-1),
        )
        if not self.has_novelty:
            return given
        return (*given, (encoding.pooled * self.novelty_weight).sum(-1) + self.novelty_bias)

    def output_names(self) -> list[str]:
        return [
            *(f"memory.{name}" for name in self.example.memory),
            *(f"carry.{name}" for name in self.example.carry),
            "features",
            *(["novelty"] if self.has_novelty else []),
        ]


class DecoderGraph(nn.Module):
    """One step: token, position, memory.*, and what the family has of parent and carry.*, ancestry
    and cache.* -> logits, next.*, append.*. Recurrent state is gathered by parent in the graph."""

    def __init__(self, model: Exportable, encoding: Encoding) -> None:
        super().__init__()
        self.model = model
        self.memory = list(encoding.memory)
        self.carry = list(encoding.carry)
        self.cache = model.cache_widths()

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(self.input_names(), arguments, strict=True))
        token = given["token"]
        # Where nothing is shared by the rows of a picture they need not be told apart.
        shared = [n for n in self.input_names() if n.startswith(("memory.", "cache."))]
        batch = given[shared[0]].shape[0] if shared else 1
        rows = token.shape[0]
        side = (batch, rows // batch)
        carry = {}
        for name in self.carry:
            state = given[f"carry.{name}"].index_select(0, given["parent"])
            carry[name] = state.view(*side, *state.shape[1:])
        if self.cache:
            slots = given["ancestry"].shape[1]
            ancestry = given["ancestry"].view(*side, slots)
        else:
            ancestry = torch.zeros(*side, 0, dtype=torch.bool)
        found = self.model.step(
            token.view(side),
            given["position"],
            ancestry,
            {name: given[f"memory.{name}"] for name in self.memory},
            carry,
            {name: given[f"cache.{name}"] for name in self.cache},
        )
        return (
            found.logits.reshape(rows, self.model.options.vocab_size),
            *(found.carry[name].reshape(rows, *found.carry[name].shape[2:]) for name in self.carry),
            *(found.append[name].reshape(rows, width) for name, width in self.cache.items()),
        )

    def input_names(self) -> list[str]:
        return [
            "token",
            "position",
            *(["parent"] if self.carry else []),
            *(["ancestry"] if self.cache else []),
            *(f"memory.{name}" for name in self.memory),
            *(f"carry.{name}" for name in self.carry),
            *(f"cache.{name}" for name in self.cache),
        ]

    def output_names(self) -> list[str]:
        return [
            "logits",
            *(f"next.{name}" for name in self.carry),
            *(f"append.{name}" for name in self.cache),
        ]


def fold_batch_norms(model: CaptionModel) -> CaptionModel:
    """A copy whose backbone has every BatchNorm folded into the convolution before it."""
    model = copy.deepcopy(model).eval()
    for block in model.backbone.modules():
        names = [name for name, child in block.named_children() if isinstance(child, nn.Conv2d)]
        norms = [n for n, child in block.named_children() if isinstance(child, nn.BatchNorm2d)]
        if len(names) != len(norms):
            continue  # not pairs: this encoder keeps its norms
        for conv, norm in zip(names, norms, strict=True):
            fused = nn.utils.fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm))
            setattr(block, conv, fused)
            setattr(block, norm, nn.Identity())
    return model
