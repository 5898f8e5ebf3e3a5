"""The convolutions of an encoder's graph, as the CPU kernels take them.

A backbone is a chain of ``Conv`` with ``Relu`` or ``Clip``, residual ``Add``, and pairs of
``QuantizeLinear`` and ``DequantizeLinear`` between. runtime/native/encode_bindings.cpp reads what
is made here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.engines.cuda_onnx import Graph
from edgecap.runtime.engines.encoder_head import Source
from edgecap.runtime.engines.onnx_weights import attributes

Size = tuple[int, int, int]  # height, width, channels
NOT_IN_BYTES = (0.0, 0)
NO_BOUNDS = (-math.inf, math.inf)
AS_IT_IS = (NOT_IN_BYTES, NO_BOUNDS, -1)
# Products of fewer inputs stay in floats: whole numbers would cost more to make than they save. So
# do those of the picture, where rounding costs most.
FEW_INPUTS = 48
FLOAT = 1  # TensorProto's


@dataclass
class Convolution:
    """One of the chain, with what follows it; its map's number is its place in the chain.

    source, residual : maps; -1 is the picture as a source, none as a residual
    whole : multiplied in int8, else in float32
    weight : float32 [O, kh * kw * C], or [kh * kw, C] where each channel is alone
    start : places before a map's first that the kernel begins at (top, left)
    bounds : what is less or more becomes these; after the residual
    rounded : (scale, zero point of int8) that its sums are rounded to before all that follows; a
        scale of 0 is for none
    quantised : the same of what it gives; a scale of 0 is for floats
    """

    source: int
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    depthwise: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]
    start: tuple[int, int]
    size: Size
    out: Size
    whole: bool
    residual: int = -1
    bounds: tuple[float, float] = NO_BOUNDS
    rounded: tuple[float, int] = NOT_IN_BYTES
    quantised: tuple[float, int] = NOT_IN_BYTES

    def packed(self) -> dict[str, Any]:
        """As ``_native.Encoder`` takes it."""
        return {
            "source": self.source,
            "residual": self.residual,
            "bounds": self.bounds,
            "depthwise": self.depthwise,
            "whole": self.whole,
            "kernel": self.kernel,
            "stride": self.stride,
            "before": self.start,
            "in": self.size,
            "out": self.out,
            "rounded": self.rounded,
            "bytes": self.quantised,
            "weight": self.weight,
            "bias": self.bias,
        }


@dataclass(frozen=True, eq=False)
class Picture:
    """A tensor that is the picture's bytes times ``scale`` [3] plus ``shift`` [3].

    box : sides of the boxes of pixels whose mean a value is
    """

    scale: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]
    channels_first: bool = False
    box: int = 1

    def packed(self) -> dict[str, Any]:
        scale, shift = (np.ascontiguousarray(v, np.float32) for v in (self.scale, self.shift))
        return {"scale": scale, "shift": shift, "box": self.box}


class ChainReader:
    """Reads the convolutions of a graph. model : as ``load_model`` gives it; size : S"""

    def __init__(self, model: Any, size: int) -> None:
        self.graph = Graph(model)
        self.nodes: list[Any] = self.graph.nodes
        self.picture_size: Size = (size, size, 3)
        self.users: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.given = set(self.graph.outputs)
        self.maps: dict[str, int] = {}
        self.pictures = {"image": Picture(np.ones(3), np.zeros(3))}
        self.seen: Picture | None = None  # by the convolutions of the picture
        self.boxes: Picture | None = None  # by what follows them
        self.chain: list[Convolution] = []
        self.taken: set[int] = set()  # nodes, by id

    def read(self) -> None:
        for node in self.nodes:
            if node.op_type == "Conv":
                self._convolution(node)
            else:
                self._picture(node)

    # ---- the picture -------------------------------------------------------------------------

    def _picture(self, node: Any) -> None:
        """Follow what is done to the picture before its first convolution."""
        before = [self.pictures.get(name) for name in node.input]
        at = next((i for i, value in enumerate(before) if value is not None), None)
        if at is None:
            return
        value = before[at]
        assert value is not None
        made: Picture | None = None
        if node.op_type == "Transpose":
            turn = [0, 2, 3, 1] if value.channels_first else [0, 3, 1, 2]
            if list(attributes(node).get("perm", ())) == turn:
                made = replace(value, channels_first=not value.channels_first)
        elif node.op_type == "AveragePool" and value.channels_first and value.box == 1:
            if (box := self._box(node)) > 0:
                made = replace(value, box=box)
        elif node.op_type == "Cast" and attributes(node).get("to") == FLOAT:
            made = value
        elif node.op_type in ("Div", "Mul", "Sub", "Add") and len(node.input) == 2:
            other = self._channels(node.input[1 - at], value.channels_first)
            if other is not None and (at == 0 or node.op_type in ("Mul", "Add")):
                made = _scaled(value, node.op_type, other)
        if made is not None:
            self.pictures[node.output[0]] = made

    def _box(self, node: Any) -> int:
        """The side of an AveragePool's boxes where they are square and cover the picture."""
        settings = attributes(node)
        sides = [int(side) for side in settings.get("kernel_shape", ())]
        strides = [int(side) for side in settings.get("strides", (1, 1))]
        plain = not any(settings.get("pads", ())) and not settings.get("ceil_mode", 0)
        plain = plain and settings.get("auto_pad", b"NOTSET") == b"NOTSET"
        square = len(sides) == 2 and sides == strides and sides[0] == sides[1]
        fits = plain and square and self.picture_size[0] % sides[0] == 0
        return sides[0] if fits and all(d == 1 for d in settings.get("dilations", ())) else 0

    def _channels(self, name: str, first: bool) -> npt.NDArray[np.float64] | None:
        """A constant as one number a channel."""
        value = self.graph.constant(name)
        if value is None or value.size not in (1, 3):
            return None
        axis = -3 if first and value.ndim >= 3 else -1
        if value.size == 3 and value.shape[axis] != 3:
            return None
        return np.broadcast_to(value.reshape(-1).astype(np.float64), 3)

    # ---- convolutions ------------------------------------------------------------------------

    def _convolution(self, node: Any) -> None:
        source = self.maps.get(node.input[0])
        if source is None:
            picture = self.pictures.get(node.input[0])
            if picture is None or not picture.channels_first or picture.box > 1:
                return
            if self.seen not in (None, picture):
                return
            self.seen, source = picture, -1
        made = self._made(node, source)
        if made is None:
            return
        taken = {id(node)}
        self.maps |= dict.fromkeys(self._follow(node.output[0], made, taken), len(self.chain))
        self.chain.append(made)
        self.taken |= taken

    def _made(self, node: Any, source: int) -> Convolution | None:
        settings = attributes(node)
        weight = self.graph.constant(node.input[1])
        given = node.input[2] if len(node.input) > 2 else ""
        bias = self.graph.constant(given) if given else None
        if weight is None or weight.ndim != 4 or (given and bias is None):
            return None
        size = self.picture_size if source < 0 else self.chain[source].out
        outputs, inputs, height, width = weight.shape
        groups = int(settings.get("group", 1))
        alone = groups == size[2] == outputs and inputs == 1 and groups > 1
        plain = groups == 1 and inputs == size[2]
        pads = [int(side) for side in settings.get("pads", (0, 0, 0, 0))]
        dilated = any(side != 1 for side in settings.get("dilations", ()))
        padded = settings.get("auto_pad", b"NOTSET") != b"NOTSET"
        if not (alone or plain) or len(pads) != 4 or min(pads) < 0 or dilated or padded:
            return None
        strides = [int(side) for side in settings.get("strides", (1, 1))]
        rows, columns = (
            (size[at] + pads[at] + pads[at + 2] - kernel) // strides[at] + 1
            for at, kernel in ((0, height), (1, width))
        )
        if min(rows, columns) < 1 or pads[0] >= height or pads[1] >= width:
            return None
        in_bytes = source >= 0 and self.chain[source].quantised != NOT_IN_BYTES
        if alone:
            turned = weight.reshape(outputs, height * width).T
        else:
            turned = weight.transpose(0, 2, 3, 1).reshape(outputs, -1)
        return Convolution(
            source=source,
            weight=np.ascontiguousarray(turned, np.float32),
            bias=np.ascontiguousarray(np.zeros(outputs) if bias is None else bias, np.float32),
            depthwise=alone,
            kernel=(height, width),
            stride=(strides[0], strides[1]),
            start=(pads[0], pads[1]),
            size=size,
            out=(rows, columns, outputs),
            whole=not alone and source >= 0 and (in_bytes or turned.shape[1] >= FEW_INPUTS),
        )

    def _follow(self, name: str, made: Convolution, taken: set[int]) -> list[str]:
        """Take in what is done to a convolution's result alone; the tensors that then hold it."""
        while True:
            user = self._only_user(name)
            if user is None:
                return [name]
            bounds = self._bounds(user)
            if bounds is not None and made.bounds == NO_BOUNDS:
                made.bounds = bounds
            elif user.op_type == "Add":
                residual = self._residual(user, name, made)
                if residual is None:
                    return [name]
                made.residual = residual
            elif user.op_type == "QuantizeLinear":
                back = self.users.get(user.output[0], [])
                quantised = self._scale(user)
                if quantised is None or not back or user.output[0] in self.given:
                    return [name]
                if any(
                    n.op_type != "DequantizeLinear" or self._scale(n) != quantised for n in back
                ):
                    return [name]
                taken |= {id(user), *(id(n) for n in back)}
                names = [n.output[0] for n in back]
                if len(names) > 1 or not self._goes_on(names[0], made):
                    made.quantised = quantised
                    return names
                made.rounded = quantised
                name = names[0]
                continue
            else:
                return [name]
            taken.add(id(user))
            name = user.output[0]

    def _only_user(self, name: str) -> Any | None:
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.given else None

    def _goes_on(self, name: str, made: Convolution) -> bool:
        """Whether what follows a rounding is done before the map is written."""
        user = self._only_user(name)
        if user is None or (made.rounded, made.bounds, made.residual) != AS_IT_IS:
            return False
        if user.op_type == "Add":
            return self._residual(user, name, made) is not None
        return self._bounds(user) is not None

    def _bounds(self, node: Any) -> tuple[float, float] | None:
        """What a Relu or Clip bounds its values by."""
        if node.op_type == "Relu":
            return 0.0, math.inf
        if node.op_type != "Clip":
            return None
        found = list(NO_BOUNDS)
        for at, name in enumerate(node.input[1:]):
            value = self.graph.scalar(name) if name else found[at]
            if value is None:
                return None
            found[at] = value
        return (found[0], found[1]) if found[0] < found[1] else None

    def _residual(self, add: Any, name: str, made: Convolution) -> int | None:
        """The map that ``add`` adds to ``name``, where the kernels can."""
        if made.residual >= 0 or made.bounds != NO_BOUNDS:
            return None
        others = [other for other in add.input if other != name]
        at = self.maps.get(others[0]) if len(others) == 1 else None
        return at if at is not None and self.chain[at].out == made.out else None

    def _scale(self, node: Any) -> tuple[float, int] | None:
        """Of a whole tensor's QuantizeLinear or DequantizeLinear: scale, and zero point in int8."""
        if len(node.input) < 3:
            return None
        scale, zero = self.graph.scalar(node.input[1]), self.graph.constant(node.input[2])
        if scale is None or zero is None or zero.size != 1 or scale <= 0:
            return None
        if zero.dtype not in (np.dtype("uint8"), np.dtype("int8")):
            return None
        return scale, int(zero.reshape(-1)[0]) - (128 if zero.dtype == np.uint8 else 0)

    # ---- what follows ------------------------------------------------------------------------

    def sources(self) -> dict[str, Source]:
        """What the steps after the convolutions may read: maps, and boxes of the picture."""
        found: dict[str, Source] = {}
        boxes = [picture for picture in self.pictures.values() if picture.box > 1]
        self.boxes = boxes[-1] if boxes else None
        for name, picture in self.pictures.items():
            if self.boxes is not None and _same_values(picture, self.boxes):
                side = self.picture_size[0] // picture.box
                shape = (3, side, side) if picture.channels_first else (side, side, 3)
                found[name] = Source(-1, shape, channels_last=not picture.channels_first)
        for name, at in self.maps.items():
            height, width, channels = self.chain[at].out
            found[name] = Source(at, (channels, height, width))
        return found


def _same_values(one: Picture, other: Picture) -> bool:
    same = one.box == other.box and np.array_equal(one.scale, other.scale)
    return bool(same and np.array_equal(one.shift, other.shift))


def _scaled(value: Picture, kind: str, other: npt.NDArray[np.float64]) -> Picture:
    scale, shift = value.scale, value.shift
    if kind == "Div":
        scale, shift = scale / other, shift / other
    elif kind == "Mul":
        scale, shift = scale * other, shift * other
    else:
        shift = shift + (other if kind == "Add" else -other)
    return replace(value, scale=scale, shift=shift)
