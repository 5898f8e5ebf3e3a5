"""The examples of bags and DDS run as their first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import ros_bags
import ros_peers

from edgecap.models import bundled

data = pytest.importorskip("skimage.data", reason="scikit-image's photographs are needed")
for name in ("mcap", "mcap_ros2", "cyclonedds", "rosbags"):
    pytest.importorskip(name, reason="of the extras ros and test")
if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    store = ros_bags.typestore()
    messages = [
        ("/image", ros_bags.START + i, ros_bags.image(store, p, "rgb8", ros_bags.START + i))
        for i, p in enumerate((data.cat(), data.coffee()))
    ]
    return ros_bags.write_bag(tmp_path / "bag", messages)


def run(example: str, *words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, f"examples/{example}", *(str(word) for word in words)],
        capture_output=True, text=True, cwd=ros_bags.ROOT,
        env=ros_peers.surroundings(ros_peers.own_domain()),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_caption_bag(bag: Path, tmp_path: Path) -> None:
    lines = run("caption_bag.py", bag, tmp_path / "captions.mcap").splitlines()
    assert lines[0].startswith("1772323200.123456789 ")
    assert len(lines) == 2
    assert len(ros_bags.read_bag(tmp_path / "captions.mcap")) == 4


def test_publish_dds(bag: Path) -> None:
    assert "captions, " in run("publish_dds.py", bag, "dds://porch/captions?durability=volatile")
