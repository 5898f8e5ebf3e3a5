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


class MobileNetEdgeTPU(nn.Module):
    """Backbone in two halves: ``trunk`` (stem to blocks.4, stride 16) and ``tail`` (to stride 32).

    Input float [B, 3, 224, 224], RGB in -1..1. BatchNorm stays in evaluation mode while training:
    its statistics are those of ImageNet and the batches of captioning are small.
    """

    def __init__(self) -> None:
        super().__init__()
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

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, 224, 224] -> [B, 96, 14, 14]."""
        x = F.relu(self.bn1(self.conv_stem(x)))
        for stage in self.blocks[:5]:
            x = stage(x)
        return x

    def tail(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 96, 14, 14] -> [B, 1280, 7, 7]."""
        for stage in self.blocks[5:]:
            x = stage(x)
        return F.relu(self.bn2(self.conv_head(x)))

    def tuned_parameters(self) -> Iterator[nn.Parameter]:
        """What captioning fine-tunes: all after blocks.5.0, whose strided 5 x 5 depthwise
        convolution has a backward pass slower than the rest of a training step."""
        for part in (
            *list(self.blocks[5].children())[1:],
            self.blocks[6],
            self.conv_head,
            self.bn2,
        ):
            yield from part.parameters()

    def train(self, mode: bool = True) -> MobileNetEdgeTPU:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_pretrained(self, path: str) -> torch.Tensor:
        """Load the published ImageNet weights; returns the classifier [1000, 1281] (bias last)."""
        from safetensors.torch import load_file

        if not Path(path).is_file():
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
