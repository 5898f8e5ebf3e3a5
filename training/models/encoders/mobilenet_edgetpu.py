"""MobileNetEdgeTPU 1.0, the encoder backbone of the default model.

Source: "Introducing the Next Generation of On-Device Vision Models: MobileNetV3 and
MobileNetEdgeTPU" (Google AI blog, 2019); the layer table is the one of the mlcommons mobile
reference model. Parameter names are those of the published state dict, so weights load by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.models.encoders.base import (
    EncoderOptions,
    Features,
    Frozen,
    ImageEncoder,
)


@dataclass(frozen=True)
class Stage:
    """A run of equal blocks. ``fused``: the expansion is a full k x k convolution, not 1 x 1."""

    fused: bool
    channels: int
    expand: tuple[int, ...]  # channels inside each block, one entry a block
    kernel: int
    stride: int  # of the first block


# blocks.1 to blocks.6; blocks.0 is a single 1 x 1 convolution.
STAGES = (
    Stage(True, 32, (128, 128, 128, 128), 3, 2),
    Stage(True, 48, (256, 192, 192, 192), 3, 2),
    Stage(False, 96, (384, 384, 384, 384), 3, 2),
    Stage(False, 96, (768, 384, 384, 384), 3, 1),
    Stage(False, 160, (768, 640, 640, 640), 5, 2),
    Stage(False, 192, (1280,), 3, 1),
)
FEATURES = 1280


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: at stride 2 the odd pixel goes to the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k, s = self.kernel_size[0], self.stride[0]
        if s == 1 or k == 1:
            return super().forward(x)
        # Even input sizes only (224, 112, 56, 28, 14), so the padding is a constant of the graph.
        total = k - s
        before = total // 2
        return super().forward(F.pad(x, (before, total - before, before, total - before)))


def _conv(cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> SameConv2d:
    padding = kernel // 2 if stride == 1 else 0
    return SameConv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False)


class ConvBlock(nn.Module):
    """1 x 1 convolution without activation (the published network has none here)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv, self.bn1 = _conv(cin, cout), nn.BatchNorm2d(cout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn1(self.conv(x))


class FusedBlock(nn.Module):
    """k x k expansion and linear projection."""

    def __init__(self, cin: int, mid: int, cout: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_exp, self.bn1 = _conv(cin, mid, kernel, stride), nn.BatchNorm2d(mid)
        self.conv_pwl, self.bn2 = _conv(mid, cout), nn.BatchNorm2d(cout)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv_pwl(F.relu(self.bn1(self.conv_exp(x)))))
        return x + y if self.residual else y


class InvertedBlock(nn.Module):
    """1 x 1 expansion, depthwise k x k, linear projection."""

    def __init__(
        self, cin: int, mid: int, cout: int, kernel: int, stride: int, residual: bool
    ) -> None:
        super().__init__()
        self.conv_pw, self.bn1 = _conv(cin, mid), nn.BatchNorm2d(mid)
        self.conv_dw, self.bn2 = _conv(mid, mid, kernel, stride, groups=mid), nn.BatchNorm2d(mid)
        self.conv_pwl, self.bn3 = _conv(mid, cout), nn.BatchNorm2d(cout)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv_pw(x)))
        y = self.bn3(self.conv_pwl(F.relu(self.bn2(self.conv_dw(y)))))
        return x + y if self.residual else y


IMAGE_SIZE = 224
GRID = 7
COLOUR_GRID = 28
MID = 5  # blocks before this one run at stride 16 or finer; their last map is kept as "mid"
LAST = 7  # conv_head, counted as the layer after blocks.6


class MobileNetEdgeTPU(ImageEncoder):
    """Maps of three depths on a 7 x 7 grid: the last one ("head"), the stride-16 map folded to the
    same grid ("mid"), and the plain colours of each cell ("colour"), because the last map of an
    ImageNet network has lost most of what colour words need.

    BatchNorm stays in evaluation mode while training: its statistics are those of ImageNet and the
    batches of captioning are small.
    """

    def __init__(self, tuned_from: int | None = None) -> None:
        super().__init__()
        if tuned_from is not None and not 0 <= tuned_from <= LAST + 1:
            raise DataError(
                f"tuned_from is {tuned_from}; mobilenet-edgetpu has layers 0 to {LAST}, "
                f"{LAST + 1} freezes all"
            )
        self.tuned_from = tuned_from
        self.image_size, self.places, self.features = IMAGE_SIZE, GRID * GRID, FEATURES
        side = COLOUR_GRID // GRID
        self.widths = {"head": FEATURES, "mid": STAGES[3].channels * 4, "colour": 3 * side * side}
        self.conv_stem, self.bn1 = _conv(3, 32, 3, 2), nn.BatchNorm2d(32)
        blocks: list[nn.Sequential] = [nn.Sequential(ConvBlock(32, 16))]
        cin = 16
        for number, stage in enumerate(STAGES, 1):
            made: list[nn.Module] = []
            for i, mid in enumerate(stage.expand):
                stride = stage.stride if i == 0 else 1
                if stage.fused:
                    made.append(FusedBlock(cin, mid, stage.channels, stage.kernel, stride))
                else:
                    # blocks.4.0 keeps shape but the published network has no shortcut there.
                    residual = i > 0 and number >= 3
                    made.append(
                        InvertedBlock(cin, mid, stage.channels, stage.kernel, stride, residual)
                    )
                cin = stage.channels
            blocks.append(nn.Sequential(*made))
        self.blocks = nn.ModuleList(blocks)
        self.conv_head, self.bn2 = _conv(cin, FEATURES), nn.BatchNorm2d(FEATURES)

    @property
    def cut(self) -> int:
        """The first of ``blocks`` that is not in the frozen half."""
        return MID if self.tuned_from is None else min(self.tuned_from, MID)

    def frozen(self, pixels: torch.Tensor) -> Frozen:
        """uint8 [B, 224, 224, 3] -> (map [B, 96, 14, 14], colours 0..255 [B, 28, 28, 3]); another$
        map where early layers are trained, too."""
        x = pixels.permute(0, 3, 1, 2).float()
        colours = F.avg_pool2d(x, IMAGE_SIZE // COLOUR_GRID).permute(0, 2, 3, 1)
        if self.cut == 0:
            return pixels, colours
        return self._run(self._stem(x), 0, self.cut), colours

    def forward(self, frozen: Frozen) -> Features:
        x, colours = frozen
        if self.cut == 0:
            x = self._stem(x.permute(0, 3, 1, 2).float())
        mid = self._run(x, self.cut, MID)
        head = F.relu(self.bn2(self.conv_head(self._run(mid, MID, len(self.blocks)))))
        tokens = head.flatten(2).transpose(1, 2)
        maps = {
            "head": tokens,
            "mid": F.pixel_unshuffle(mid, 2).flatten(2).transpose(1, 2),
            "colour": _fold_colours(colours / 127.5 - 1),
        }
        return Features(maps, tokens.mean(1))

    def _stem(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn1(self.conv_stem(x / 127.5 - 1)))

    def _run(self, x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        for stage in self.blocks[start:stop]:
            x = stage(x)
        return x

    def tuned_parameters(self) -> Iterator[nn.Parameter]:
        """By default all after blocks.5.0, whose strided 5 x 5 depthwise convolution has a backward
        pass slower than the rest of a training step."""
        first = self.tuned_from
        parts: list[nn.Module] = []
        if first == 0:
            parts += [self.conv_stem, self.bn1]
        if first is None:
            parts += [*list(self.blocks[MID].children())[1:], *self.blocks[MID + 1 :]]
        else:
            parts += self.blocks[first:]
        if first is None or first <= LAST:
            parts += [self.conv_head, self.bn2]
        for part in parts:
            yield from part.parameters()

    def train(self, mode: bool = True) -> MobileNetEdgeTPU:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_pretrained(self, weights: str) -> None:
        """Load the published ImageNet weights, a safetensors file or the folder with it."""
        self.load_classifier(weights)

    def load_classifier(self, weights: str) -> torch.Tensor:
        """Load the weights; returns the ImageNet classifier [1000, 1281] (bias last)."""
        from safetensors.torch import load_file

        path = Path(weights)
        if path.is_dir():
            path = path / "model.safetensors"
        if not path.is_file():
            raise DataError(f"no weights at {path}; give the folder of published weights")
        state = load_file(path)
        classifier = torch.cat(
            [state.pop("classifier.weight"), state.pop("classifier.bias")[:, None]], 1
        )
        missing, unexpected = self.load_state_dict(state, strict=False)
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise DataError(
                f"{path} is not this network: missing {missing[:3]}, unexpected {unexpected[:3]}"
            )
        return classifier


def _fold_colours(x: torch.Tensor) -> torch.Tensor:
    """[B, 28, 28, 3] -> [B, 49, 48]."""
    side = COLOUR_GRID // GRID
    x = x.reshape(x.shape[0], GRID, side, GRID, side, 3).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(x.shape[0], GRID * GRID, side * side * 3)


def make(options: EncoderOptions) -> MobileNetEdgeTPU:
    return MobileNetEdgeTPU(options.tuned_from)
