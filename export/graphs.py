"""The two graphs of a caption model as torch modules with the contract's inputs and outputs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from edgecap.training.models.image_transformer import ImageTransformer


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
    """image uint8 [B, S, S, 3] -> memory.key.i, memory.value.i, features, novelty."""

    novelty_weight: torch.Tensor
    novelty_bias: torch.Tensor

    def __init__(self, model: ImageTransformer, novelty: NoveltyHead) -> None:
        super().__init__()
        self.model = fold_batch_norms(model)
        self.register_buffer("novelty_weight", novelty.weight)
        self.register_buffer("novelty_bias", novelty.bias)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        trunk, colours = self.model.trunk(image)
        tokens, pooled = self.model.grid(trunk)
        memory = self.model.remember(trunk, colours, tokens, pooled)
        pairs = [part for layer in self.model.layers() for part in layer.memory(memory)]
        novelty = (pooled * self.novelty_weight).sum(-1) + self.novelty_bias
        return (*pairs, nn.functional.normalize(pooled, dim=-1), novelty)

    def output_names(self) -> list[str]:
        return [*memory_names(self.model), "features", "novelty"]


class DecoderGraph(nn.Module):
    """One step: token, position, ancestry, memory.*, cache.* -> logits, append.*."""

    def __init__(self, model: ImageTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        token: torch.Tensor,
        position: torch.Tensor,
        ancestry: torch.Tensor,
        *states: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        layers = len(self.model.decoder)
        memory = [(states[2 * i], states[2 * i + 1]) for i in range(layers)]
        cache = [(states[2 * i], states[2 * i + 1]) for i in range(layers, 2 * layers)]
        batch, rows = memory[0][0].shape[0], token.shape[0]
        beams = rows // batch
        logits, appended = self.model.step(
            token.view(batch, beams),
            position,
            ancestry.view(batch, beams, cache[0][0].shape[1]),
            memory,
            cache,
        )
        width = self.model.options.width
        flat = [part.reshape(rows, width) for pair in appended for part in pair]
        return (logits.reshape(rows, self.model.options.vocab_size), *flat)

    def input_names(self) -> list[str]:
        caches = [name.replace("memory.", "cache.") for name in memory_names(self.model)]
        return ["token", "position", "ancestry", *memory_names(self.model), *caches]

    def output_names(self) -> list[str]:
        return ["logits", *(n.replace("memory.", "append.") for n in memory_names(self.model))]


def memory_names(model: ImageTransformer) -> list[str]:
    return [f"memory.{part}.{i}" for i in range(len(model.decoder)) for part in ("key", "value")]


def fold_batch_norms(model: ImageTransformer) -> ImageTransformer:
    """A copy whose backbone has every BatchNorm folded into the convolution before it."""
    model = copy.deepcopy(model).eval()
    for block in model.backbone.modules():
        names = [name for name, child in block.named_children() if isinstance(child, nn.Conv2d)]
        norms = [n for n, child in block.named_children() if isinstance(child, nn.BatchNorm2d)]
        for conv, norm in zip(names, norms, strict=True):
            fused = nn.utils.fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm))
            setattr(block, conv, fused)
            setattr(block, norm, nn.Identity())
    return model
