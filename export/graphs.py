"""The two graphs of a caption model as torch modules with the contract's inputs and outputs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from edgecap.training.models.image_transformer import ImageTransformer


@dataclass(frozen=True)
class Typicality:
    """Whitening of pooled features fitted on the training photographs.

    mean float32 [F]; basis float32 [F, P], principal directions scaled to unit variance.
    """

    mean: torch.Tensor
    basis: torch.Tensor

    @staticmethod
    def fit(pooled: torch.Tensor, directions: int = 64) -> Typicality:
        """Fit on pooled features, float32 [N, F]."""
        mean = pooled.mean(0)
        _, singular, basis = torch.linalg.svd(pooled - mean, full_matrices=False)
        scale = singular[:directions] / (len(pooled) - 1) ** 0.5
        return Typicality(mean, (basis[:directions] / scale[:, None]).T.contiguous())

    def novelty(self, pooled: torch.Tensor) -> torch.Tensor:
        """Log of the mean squared whitened coordinate, [B]; 0 for a typical photograph."""
        return ((pooled - self.mean) @ self.basis).square().mean(-1).clamp_min(1e-6).log()


class EncoderGraph(nn.Module):
    """image uint8 [B, S, S, 3] -> memory.key.i, memory.value.i, features, novelty."""

    mean: torch.Tensor
    basis: torch.Tensor

    def __init__(self, model: ImageTransformer, typicality: Typicality) -> None:
        super().__init__()
        self.model = fold_batch_norms(model)
        self.register_buffer("mean", typicality.mean)
        self.register_buffer("basis", typicality.basis)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        trunk, colours = self.model.trunk(image)
        tokens, pooled = self.model.grid(trunk)
        memory = self.model.remember(trunk, colours, tokens, pooled)
        pairs = [part for layer in self.model.layers() for part in layer.memory(memory)]
        novelty = Typicality(self.mean, self.basis).novelty(pooled)
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
