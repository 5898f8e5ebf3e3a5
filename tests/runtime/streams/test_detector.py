"""The detector: what people name in photographs, models of either make, and what is refused."""

from __future__ import annotations

from pathlib import Path

import coco_photographs
import cv2
import numpy as np
import pytest

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.detector import COCO, Detector
from edgecap.runtime.streams.nearness import overlap


def test_the_detector_finds_what_people_name(detector: Detector, shared: Path) -> None:
    """Where all five people write of a cat, a dog, a train or a bus, the detector sees one."""
    right = count = 0
    for path, captions in coco_photographs.photographs(shared):
        for name in ("cat", "dog", "train", "bus"):
            if not all(f" {name} " in f" {text.rstrip('.')} " for text in captions):
                continue
            found = detector(cv2.imread(str(path)))
            assert ((found.boxes >= 0.0) & (found.boxes <= 1.0)).all()
            assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all()
            count += 1
            right += COCO.index(name) in found.classes
    assert count >= 20
    assert right >= 0.75 * count


def test_colours_and_sizes_change_little(detector: Detector, shared: Path) -> None:
    path = next(
        path
        for path, texts in coco_photographs.photographs(shared)
        if all("cat" in t for t in texts)
    )
    image = cv2.imread(str(path))
    plain, turned = detector(image), detector(image[..., ::-1], channels="RGB")
    np.testing.assert_array_equal(plain.boxes, turned.boxes)
    big = detector(cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC))
    assert overlap(plain.boxes[0], big.boxes[0]) > 0.8
    assert len(detector(np.zeros((1, 5000, 3), np.uint8))) == 0


def test_boxes_in_pixels_are_known_by_themselves(yolox: Path, tmp_path: Path) -> None:
    """The authors' exporter can also decode the boxes inside the graph."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    from edgecap.runtime.streams.detector import _places

    graph = onnx.load(yolox)
    cells, strides = _places(416)
    inner, outer = graph.graph.output[0].name, "decoded"
    for name, value in (
        ("cells", cells),
        ("strides", strides),
        ("parts", np.array([2, 2, 81], np.int64)),
    ):
        graph.graph.initializer.append(numpy_helper.from_array(value, name))
    # The opset of the model splits by an attribute.
    graph.graph.node.extend(
        [
            helper.make_node("Split", [inner], ["xy", "wh", "rest"], axis=2, split=[2, 2, 81]),
            helper.make_node("Add", ["xy", "cells"], ["moved"]),
            helper.make_node("Mul", ["moved", "strides"], ["centres"]),
            helper.make_node("Exp", ["wh"], ["sides"]),
            helper.make_node("Mul", ["sides", "strides"], ["sizes"]),
            helper.make_node("Concat", ["centres", "sizes", "rest"], [outer], axis=2),
        ]
    )
    graph.graph.output[0].name = outer
    onnx.save(graph, tmp_path / "pixels.onnx")
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    image = cv2.resize(image, (640, 480))
    one = Detector(yolox)(image, least=0.02)
    other = Detector(tmp_path / "pixels.onnx")(image, least=0.02)
    assert len(one) > 0
    np.testing.assert_array_equal(one.classes, other.classes)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-4)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [entry], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "relu.onnx")
    with pytest.raises(OptionsError, match=r"relu.onnx gives .*YOLOX"):
        Detector(tmp_path / "relu.onnx")
