"""``edgecap bag``: real clips in a bag of another library, captions out, read by that library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import ros_bags

from edgecap.models import bundled

for name in ("mcap", "mcap_ros2"):
    pytest.importorskip(name, reason="of the extra ros")
pytest.importorskip("rosbags", reason="bags are made by another library")
if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)
STEP = 333_333_333  # nanoseconds between images


def edgecap(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgecap", *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras: ``Image`` of a street, ``CompressedImage`` of a highway; 6 images each."""
    if not ros_bags.CLIPS.is_dir():
        pytest.skip("no video clips beside the checkout")
    store = ros_bags.typestore()
    front = ros_bags.clip_frames("worker_zone_480x270.mp4", 6)
    rear = ros_bags.clip_frames("driving_highway_960x540.mp4", 6)
    assert len(front) == len(rear) == 6
    messages: list[tuple[str, int, Any]] = []
    for index, (ahead, behind) in enumerate(zip(front, rear, strict=True)):
        stamp = ros_bags.START + index * STEP
        jpeg = cv2.imencode(".jpg", behind)[1].tobytes()
        messages += [
            (
                "/front/image_raw",
                stamp + 5_000_000,
                ros_bags.image(store, ahead[..., ::-1], "rgb8", stamp, "front_optical"),
            ),
            (
                "/rear/image_raw/compressed",
                stamp + 7_000_000,
                ros_bags.compressed(store, jpeg, stamp + 11, "rear_optical"),
            ),
        ]
    return ros_bags.write_bag(tmp_path_factory.mktemp("drive") / "drive", messages)


def captions(path: Path, topic: str) -> list[tuple[int, int, str]]:
    """(time in the file, stamp, frame id) of a topic's captions."""
    return [
        (
            moment,
            message.header.stamp.sec * 10**9 + message.header.stamp.nanosec,
            message.header.frame_id,
        )
        for name, moment, message in ros_bags.read_bag(path)
        if name == f"{topic}/caption"
    ]


def test_every_image_of_both_topics_with_its_stamp_and_frame(drive: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.mcap"
    done = edgecap("bag", drive, "-o", out, "--gate", "none", "--beams", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 12 captions\n"
    stamps = [ros_bags.START + index * STEP for index in range(6)]
    assert captions(out, "/front/image_raw") == [
        (stamp + 5_000_000, stamp, "front_optical") for stamp in stamps
    ]
    assert captions(out, "/rear/image_raw/compressed") == [
        (stamp + 7_000_000, stamp + 11, "rear_optical") for stamp in stamps
    ]
    said = {topic: message for topic, _, message in ros_bags.read_bag(out)}
    assert len(said) == 4
    for topic in ("/front/image_raw", "/rear/image_raw/compressed"):
        caption, text = said[f"{topic}/caption"], said[f"{topic}/caption_text"]
        assert len(caption.text.split()) > 3
        assert text.data in (caption.text, f"{caption.text} (not sure)")
        assert caption.model == "default"
    assert said["/front/image_raw/caption"].text != said["/rear/image_raw/compressed/caption"].text


def test_a_bag_cut_off_in_the_middle(drive: Path, tmp_path: Path) -> None:
    cut, out = tmp_path / "cut.mcap", tmp_path / "captions.mcap"
    data = drive.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    done = edgecap("bag", cut, "-o", out, "--gate", "none", "--topic", "/front/image_raw")
    if done.returncode == 0:
        held = captions(out, "/front/image_raw")
        assert 0 < len(held) < 6
        assert f"{len(held)} messages of /front/image_raw stand before that" in done.stderr
    else:  # all of it may lie in one part, which is then lost as a whole
        assert done.returncode == 2
        assert "no topic" in done.stderr
        assert not out.exists()


def test_a_profile_and_the_stream_command(drive: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.mcap"
    done = edgecap("bag", drive, "-o", out, "--profile", "driving", "--topic", "front/image_raw")
    assert done.returncode == 0, done.stderr
    assert captions(out, "/front/image_raw")
    address = f"mcap://{drive.parent}?topic=/rear/image_raw/compressed"
    done = edgecap("stream", address, "--no-realtime", "--max-captions", "1", "--sink", out)
    assert done.returncode == 0, done.stderr
    assert '"frame_id": "rear_optical"' in done.stdout
    assert captions(out, "/edgecap")[0][1:] == (ros_bags.START + 11, "rear_optical")


def test_bad_input_is_one_line_and_leaves_nothing(drive: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.mcap"
    text = tmp_path / "text.mcap"
    text.write_text("no bag")
    for words, said in (
        ((tmp_path / "absent.mcap", "-o", out), "does not exist"),
        ((text, "-o", out), "is no MCAP file"),
        ((drive, "-o", out, "--topic", "/up"), "has no topic /up; topics with images: /front"),
        ((drive, "-o", drive), "is the bag that is read"),
        ((drive, "-o", tmp_path / "no" / "x.mcap"), "in a folder that exists"),
        ((drive, "-o", out, "--beams", "0"), "beams"),
    ):
        done = edgecap("bag", *words)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["text.mcap"]
