"""Encoders that are a chain of layers, cut anywhere into a frozen and a trained half."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from functools import partial
from typing import Any, TypeVar

import msgspec
import torch
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.models.encoders.base import (
    EncoderOptions,
    Features,
    Frozen,
    ImageEncoder,
)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Colour = tuple[float, float, float]  # red, green, blue, of pixels as 0..1
S = TypeVar("S")


def read_settings(name: str, standard: S, given: dict[str, Any]) -> S:
    """``standard`` with what is ``given`` in place of its fields, all checked."""
    known = [f.name for f in fields(standard)]  # type: ignore[arg-type]
    odd = [key for key in given if key not in known]
    if odd:
        raise DataError(f"{name} has no setting {odd[0]!r}; it has {', '.join(known)}")
    try:
        values = asdict(standard) | given  # type: ignore[call-overload]
        settings = msgspec.convert(values, type(standard))
    except (msgspec.ValidationError, ValueError) as error:
        raise DataError(f"settings of {name}: {error}") from None
    for key in known:
        value = getattr(settings, key)
        numbers = value if isinstance(value, tuple) else (value,)
        if key == "mean" or isinstance(value, str):
            continue
        if not numbers or not all(number > 0 for number in numbers):
            raise DataError(f"settings of {name}: {key} is {value!r}; give numbers above 0")
    return settings


def check_sides(image_size: int, cell: int) -> None:
    """Raises DataError where cells of ``cell`` pixels do not fill the picture."""
    if cell < 1 or image_size < cell or image_size % cell:
        raise DataError(f"image_size is {image_size}; give a multiple of {cell}")


def check_heads(width: int, heads: int) -> None:
    """Raises DataError where heads do not share the width evenly."""
    if width % heads:
        raise DataError(f"heads is {heads}; give a divisor of width, {width}")


class LayeredEncoder(ImageEncoder):
    """``layers()`` one after the other, then ``finish()``, which trains nothing.

    tuned_from of None trains all where no weights were named, else from the layer ``TUNED``.

    BatchNorm stays in evaluation mode while training: its statistics are those of ImageNet and the
    batches of captioning are small.
    """

    TUNED: int  # past the last layer freezes all
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, options: EncoderOptions, settings: Any) -> None:
        super().__init__()
        self.name, self.settings = options.name, settings
        self.image_size = settings.image_size
        self.tuned_from = options.tuned_from
        self.from_scratch = not options.weights
        # Of 0..255 pixels; not of the state dict, since published weights do not have them.
        self.register_buffer(
            "mean", 255 * torch.tensor(settings.mean).view(3, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", 255 * torch.tensor(settings.std).view(3, 1, 1), persistent=False
        )

    @abstractmethod
    def parts(self) -> list[list[nn.Module]]:
        """The modules of every layer, for their parameters."""

    def layers(self) -> list[Callable[..., Frozen]]:
        """Functions of tensors to tensors; the first takes scaled pixels [B, 3, S, S]. Those of
        ``parts`` one after the other, where an encoder says nothing else."""
        return [partial(_chain, part) for part in self.parts()]

    @abstractmethod
    def finish(self, *state: torch.Tensor) -> Features:
        """What the last layer gave, as features."""

    @property
    def cut(self) -> int:
        """The first trained layer, in 0..the number of layers."""
        count = len(self.parts())
        if self.tuned_from is None:
            return 0 if self.from_scratch else min(self.TUNED, count)
        return self.tuned_from

    def check_cut(self) -> None:
        """Raises DataError where ``tuned_from`` is no layer; called at the end of __init__."""
        count = len(self.parts())
        if self.tuned_from is not None and not 0 <= self.tuned_from <= count:
            raise DataError(
                f"tuned_from is {self.tuned_from}; {self.name} has layers 0 to {count - 1}, "
                f"{count} freezes all"
            )

    def frozen(self, pixels: torch.Tensor) -> Frozen:
        """uint8 [B, S, S, 3] -> what layer ``cut - 1`` gives; the pixels where all is trained."""
        if self.cut == 0:
            return (pixels,)
        # Even where the caller records gradients, none may reach the frozen layers.
        with torch.no_grad():
            return self._run((self._scaled(pixels),), 0, self.cut)

    def forward(self, frozen: Frozen) -> Features:
        if self.cut == 0:
            frozen = (self._scaled(frozen[0]),)
        return self.finish(*self._run(frozen, self.cut, None))

    def tuned_parameters(self) -> Iterator[nn.Parameter]:
        for part in self.parts()[self.cut :]:
            for module in part:
                yield from module.parameters()

    def train(self, mode: bool = True) -> LayeredEncoder:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def _scaled(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def _run(self, state: Frozen, start: int, stop: int | None) -> Frozen:
        for layer in self.layers()[start:stop]:
            state = layer(*state)
        return state


def _chain(part: list[nn.Module], x: torch.Tensor) -> Frozen:
    for module in part:
        x = module(x)
    return (x,)


def grid_features(x: torch.Tensor) -> Features:
    """A last map [B, C, H, W] as the one map ``grid``, pooled by its mean."""
    tokens = x.flatten(2).transpose(1, 2)
    return Features({"grid": tokens}, tokens.mean(1))
