"""What comes nearer: the geometry, the detector on real photographs, and a stream that says so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import coco_photographs
import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("yaml", reason="PyYAML reads profiles")
pytest.importorskip("humanfriendly", reason="humanfriendly reads times")
from hypothesis import assume, given
from hypothesis import strategies as st

import edgecap
from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams import Pipeline, StreamOptions, open_source
from edgecap.runtime.streams.detector import COCO, Detections, Detector
from edgecap.runtime.streams.frames import Approach, Frame
from edgecap.runtime.streams.narrator import Narrator, preparation
from edgecap.runtime.streams.nearness import Approaches, Nearness, overlap, time_to_contact
from edgecap.runtime.streams.profiles import load_profile

PERSON, CAR, TRUCK = COCO.index("person"), COCO.index("car"), COCO.index("truck")
TIMES = np.arange(9) * 0.2


def pinhole(
    times: npt.NDArray[np.float64],
    contact: float,
    width: float = 0.1,
    high: float = 0.2,
    across: float = 0.0,
) -> npt.NDArray[np.float64]:
    """Boxes of a thing at unit distance at time 0 that is reached at ``contact``, or left behind
    where that is negative; ``across``: widths at unit distance by which it moves a second."""
    distance = 1.0 - times / contact
    centre = np.stack([0.5 + across * width * times / distance, np.full_like(times, 0.5)], axis=1)
    half = np.array([width, high]) / 2 / distance[:, None]
    return np.concatenate([centre - half, centre + half], axis=1)


@given(
    contact=st.floats(2.2, 9.0),
    width=st.floats(0.03, 0.15),
    noise=st.integers(0, 2**31),
    wrong=st.integers(0, 1),
)
def test_the_time_to_contact_is_that_of_the_geometry(
    contact: float, width: float, noise: int, wrong: int
) -> None:
    """Also where sightings tremble by half a percent, and one is of something else."""
    random = np.random.default_rng(noise)
    boxes = pinhole(TIMES, contact, width, 1.5 * width)
    assume(boxes.min() > 0.03)
    assume(boxes.max() < 0.97)
    exact = time_to_contact(TIMES, boxes)
    left = contact - TIMES[-1]
    assert exact == pytest.approx(left, rel=1e-6)
    boxes += random.uniform(-0.005, 0.005, boxes.shape) * width
    for index in random.choice(len(TIMES) - 2, wrong, replace=False) + 1:
        boxes[index] = (0.4, 0.4, 0.42, 0.45)
    found = time_to_contact(TIMES, boxes)
    if contact < 5.0:  # slower growth drowns in the trembling
        assert found == pytest.approx(left, rel=0.1)


@given(contact=st.floats(-9.0, -0.5), width=st.floats(0.05, 0.4))
def test_what_goes_away_is_never_reached(contact: float, width: float) -> None:
    assert time_to_contact(TIMES, pinhole(TIMES, contact, width, 0.6)) is None


def test_what_only_looks_like_coming_nearer() -> None:
    near = pinhole(TIMES, 3.0)
    assert time_to_contact(TIMES, near) == pytest.approx(1.4)
    assert time_to_contact(TIMES, pinhole(TIMES, 3.0, across=3.0)) is None  # passes by
    turning = near.copy()
    turning[:, [1, 3]] = near[0, [1, 3]]
    assert time_to_contact(TIMES, turning) is None  # one side grows alone
    assert time_to_contact(TIMES[:6], near[:6]) is None  # seen for one second only
    still = np.repeat(near[:1], len(TIMES), axis=0)
    assert time_to_contact(TIMES, still) is None
    entering = near.copy()
    entering[:, 3] = 1.0  # cut off below, and its head goes down: it leaves
    entering[:, 1] = np.linspace(0.2, 0.5, len(TIMES))
    assert time_to_contact(TIMES, entering) is None
    corner = near.copy()
    corner[:, :2] = 0.0
    assert time_to_contact(TIMES, corner) is None  # no side is whole


def test_a_side_that_is_cut_off_does_not_count() -> None:
    below = pinhole(TIMES, 3.0)
    below[:, 3] = 1.0
    assert time_to_contact(TIMES, below) == pytest.approx(1.4)
    beside = pinhole(TIMES, 3.0)
    beside[:, 0] = 0.0
    assert time_to_contact(TIMES, beside) == pytest.approx(1.4)


def detections(*things: tuple[int, npt.NDArray[np.float64], float]) -> Detections:
    return Detections(
        np.array([box for _, box, _ in things], np.float32).reshape(-1, 4),
        np.array([kind for kind, _, _ in things], np.int64),
        np.array([score for *_, score in things], np.float32),
    )


def test_each_thing_is_followed_and_told_once() -> None:
    """Two people come, one goes, and a truck that is a car in every other look comes, too."""
    shift = np.array([0.35, 0.0, 0.35, 0.0])
    first, second = pinhole(TIMES, 3.0) - shift, pinhole(TIMES, 4.0) + shift
    gone = pinhole(TIMES, -2.0, 0.05, 0.1) + np.array([0.0, 0.35, 0.0, 0.35])
    truck = pinhole(TIMES, 3.0) - np.array([0.0, 0.3, 0.0, 0.3]) / 2
    watch = Approaches({"someone": ["person"], "a vehicle": ["car", "truck"]}, within=3.5)
    told = []
    for index, now in enumerate(TIMES):
        kind = CAR if index % 2 else TRUCK
        seen = detections(
            (PERSON, first[index], 0.8),
            (PERSON, second[index], 0.9),
            (PERSON, gone[index], 0.9),
            (kind, truck[index], 0.7),
            (CAR if kind == TRUCK else TRUCK, truck[index], 0.6),
            (COCO.index("chair"), first[index], 0.9),
        )
        told += watch.follow(seen, float(now))
    assert sorted(thing.what for thing in told) == ["a vehicle", "someone", "someone"]
    assert all(0.0 < thing.seconds <= 3.5 for thing in told)


def test_what_is_small_or_doubtful_is_not_told() -> None:
    def told(high: float, score: float, **options: float) -> int:
        watch = Approaches({"someone": ["person"]}, **options)
        boxes = pinhole(TIMES, 3.0, high / 2, high)
        looks = zip(TIMES, boxes, strict=True)
        return sum(
            len(watch.follow(detections((PERSON, box, score)), float(now))) for now, box in looks
        )

    assert told(0.2, 0.8) == 1
    assert told(0.05, 0.8) == 0
    assert told(0.05, 0.8, size=0.05) == 1
    assert told(0.2, 0.5) == 0
    assert told(0.2, 0.5, sure=0.4) == 1
    assert told(0.2, 0.8, within=0.5) == 0


def test_overlap_is_intersection_over_union() -> None:
    one, other = np.array([0, 0, 2, 2], np.float32), np.array([1, 0, 3, 2], np.float32)
    assert overlap(one, other) == pytest.approx(1 / 3)
    assert overlap(one, one) == 1.0
    assert overlap(one, one + 2) == 0.0


def test_photographs_that_are_walked_towards(detector: Detector, shared: Path) -> None:
    """The picture of a flat thing grows as one over its distance: the time is known exactly."""
    contact, errors, walks = 4.0, [], 0
    for path, captions in coco_photographs.photographs(shared):
        name = next((n for n in ("cat", "dog", "bus") if all(n in t for t in captions)), None)
        if name is None or walks == 12:
            continue
        walks += 1
        image = cv2.imread(str(path))
        watch = Nearness(detector, Approaches({name: [name]}, within=3.0, again=0.1))
        for index in range(15):
            now = index * 0.2
            seen = watch.look(zoomed(image, 0.5 / (1.0 - now / contact), index, now))
            errors += [thing.seconds / (contact - now) - 1.0 for thing in seen.nearer]
    assert walks == 12
    assert len(errors) >= 30  # of 12 walks with 5 looks or more within 3 seconds each
    assert abs(float(np.median(errors))) < 0.1
    assert float(np.quantile(np.abs(errors), 0.9)) < 0.35


def zoomed(image: npt.NDArray[np.uint8], scale: float, index: int, now: float) -> Frame:
    """The picture ``scale`` times as large in the middle of a grey square, cut off by its edges."""
    side = 416
    move = np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]])
    move[:, 2] = side / 2 - scale * np.array(image.shape[1::-1]) / 2
    method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    canvas = cv2.warpAffine(image, move, (side, side), flags=method, borderValue=(90, 90, 90))
    return Frame(np.asarray(canvas, np.uint8), index, now, now, now, "test")


def clip(shared: Path, name: str) -> str:
    return str(shared / "data" / "video_clips" / name)


def nearer(detector: Detector, path: str) -> list[tuple[float, str]]:
    part = load_profile("assistive").nearness
    watch = Nearness(detector, Approaches(part.things, within=part.within))
    with open_source(path, realtime=False) as source:
        return [
            (frame.seconds, thing.what) for frame in source for thing in watch.look(frame).nearer
        ]


def test_two_people_who_walk_up_to_the_camera(detector: Detector, shared: Path) -> None:
    found = nearer(detector, clip(shared, "corridor_walking_480x270.mp4"))
    assert [what for _, what in found] == ["someone", "someone"]
    assert found[0][0] < 1.5


STILL = ["classroom", "kitchen_produce", "store_aisle", "street", "worker_zone"]


@pytest.mark.parametrize("name", STILL)
def test_nobody_comes_nearer(detector: Detector, shared: Path, name: str) -> None:
    assert nearer(detector, clip(shared, f"{name}_480x270.mp4")) == []


def test_a_stream_says_who_comes_nearer(yolox: Path, shared: Path, tmp_path: Path) -> None:
    """At once, whatever gate, governor and intervals say, and before the caption."""
    (tmp_path / "detector.onnx").write_bytes(yolox.read_bytes())
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: assistive\nnearness:\n  detector: detector.onnx\n")
    profile = load_profile(mine)
    options = profile.stream_options(min_interval=30.0)
    with open_source(clip(shared, "corridor_walking_480x270.mp4"), realtime=False) as source:
        stream = Pipeline(
            source,
            edgecap.load(),
            options=options,
            prepare=preparation(profile, source),
            tell=Narrator(profile),
        )
        events = [event for event in stream if event.nearer]
    assert [event.reason for event in events] == ["nearer", "nearer"]
    for event in events:
        said = event.to_dict()
        assert said["sentence"].startswith("Careful, someone comes nearer. ")
        assert said["notes"][0] == {
            "kind": "alert",
            "what": "nearer",
            "words": "someone",
            "sentence": "Careful, someone comes nearer.",
        }
        (thing,) = json.loads(json.dumps(said))["nearer"]
        assert thing["what"] == "someone"
        assert 0.0 < thing["seconds"] <= 4.0
        assert len(thing["box"]) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "things: {someone: [person]}\n  detector: none.onnx",
            ("none.onnx", "cannot be read", "YOLOX"),
        ),
        (
            "things: {someone: [person]}\n  detector: text.onnx",
            ("text.onnx", "does not load", "YOLOX"),
        ),
        ("things: {someone: [human]}", ("nearness.things.someone", "'human'", "person")),
        ("within: 3", ("nearness.within", "no unit")),
        ("within: 2 minutes", ("nearness.within is 120 s", "60 s")),
        ("sure: 2", ("nearness.sure is 2", "0 to 1")),
        ("near: 2", ("nearness.near is no key", "detector")),
    ],
)
def test_what_is_wrong_is_said(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"nearness:\n  {text}\n")
    with pytest.raises(OptionsError) as caught:
        load_profile(mine)
    for word in words:
        assert word in str(caught.value)


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: assistive\nnearness:\n  detector: none.onnx\n")
    words = ["stream", "test://static", "--profile", str(mine)]
    done = subprocess.run(
        [sys.executable, "-m", "edgecap", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "none.onnx cannot be read (No such file or directory)" in done.stderr


def test_a_detector_needs_things_to_look_for(yolox: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"nearness:\n  detector: {yolox}\n")
    with pytest.raises(OptionsError, match=r"things is empty; give such as"):
        load_profile(mine)
    mine.write_text(f"extends: driving\nnearness:\n  detector: {yolox}\n  every: 1 s\n")
    with pytest.raises(OptionsError, match=r"nearness.every is 1 s; .*0.32 s"):
        load_profile(mine)


@pytest.mark.parametrize("index", [0, 1], ids=["first frame", "later"])
def test_an_alert_is_heard_though_the_caption_is_doubtful(
    script: Any, picture: Callable[..., Any], captioner: Callable[..., Any], index: int
) -> None:
    near = Approach("someone", 2.0, (0.4, 0.4, 0.6, 0.9))

    def prepare(frame: Frame) -> Frame:
        return replace(frame, nearer=(near,)) if frame.index == index else frame

    def doubtful(image: Any, **options: Any) -> Any:
        return replace(captioner(image, **options), sure=False)

    source = script([picture(0, 0.0), picture(9, 1.0)], live=False)
    options = StreamOptions(gate="none", unsure="silent")
    events = list(Pipeline(source, doubtful, options=options, prepare=prepare))
    assert [(event.frame, event.nearer) for event in events] == [(index, (near,))]
