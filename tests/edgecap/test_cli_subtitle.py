"""``edgecap subtitle``: scenes of films, made and real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("scenedetect", reason="PySceneDetect finds the cuts")
pytest.importorskip("pysubs2", reason="pysubs2 writes the file")
from edgecap.runtime.caption import Caption, Timings
from edgecap.runtime.errors import OptionsError, SourceError
from edgecap.runtime.streams.scenes import Scene, describe_scenes, find_scenes


def subtitle(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecap", "subtitle", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three shots of 2, 3 and 4 seconds: noise in blue, green and red."""
    path = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25.0, (160, 120))
    assert writer.isOpened()
    generator = np.random.default_rng(0)
    for channel, seconds in enumerate((2, 3, 4)):
        shot = generator.integers(0, 60, (120, 160, 3), np.uint8)
        shot[..., channel] += 180
        for _ in range(25 * seconds):
            writer.write(shot)
    writer.release()
    return path


def test_cuts_are_found_and_long_scenes_divided(film: Path) -> None:
    scenes = find_scenes(film)
    assert [(s.start, s.end) for s in scenes] == [(0.0, 2.0), (2.0, 5.0), (5.0, 9.0)]
    scenes = find_scenes(film, longest=2.0)
    assert [s.start for s in scenes] == [0.0, 2.0, 3.5, 5.0, 7.0]
    assert scenes[-1].end == 9.0


def test_the_most_confident_of_three_frames_speaks(film: Path) -> None:
    asked: list[str] = []

    def captioner(image: np.ndarray, *, channels: str) -> Caption:
        colour = ["blue", "green", "red"][int(image.mean(axis=(0, 1)).argmax())]
        asked.append(colour)
        confidence = (0.2, 0.9, 0.5)[(len(asked) - 1) % 3]
        return Caption(f"{colour} {len(asked)}", (2,), 0.0, confidence, True, Timings())

    told = list(describe_scenes(film, captioner, find_scenes(film)))
    assert asked == ["blue"] * 3 + ["green"] * 3 + ["red"] * 3
    assert [caption.text for _, caption in told] == ["blue 2", "green 5", "red 8"]


def test_frames_lie_inside_their_scene() -> None:
    assert Scene(2.0, 6.0).looks(3) == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("ending", ["vtt", "srt"])
def test_a_film_gets_its_file(film: Path, tiny_bundle: Path, ending: str) -> None:
    out = film.with_suffix(f".{ending}")
    arguments = ["--model", str(tiny_bundle), "--threads", "1"]
    if ending != "vtt":
        arguments += ["-o", str(out)]
    done = subtitle(str(film), *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 3 of 3 scenes\n"
    assert out.read_text().count("-->") in (1, 2, 3)  # neighbours that say the same are one cue
    assert done.stderr == ""


def test_bad_input_is_one_line(tmp_path: Path, film: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "short.gif").write_text("x")
    frame = np.zeros((32, 32, 3), np.uint8)
    for still in ("still.jpg", "still.png"):
        cv2.imwrite(str(tmp_path / still), frame)
    once = cv2.VideoWriter(
        str(tmp_path / "once.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25.0, (32, 32)
    )
    once.write(frame)
    once.release()
    for arguments, part in (
        (["/no/such/film.mp4", "-o", str(tmp_path / "x.vtt")], "is not a file"),
        ([str(tmp_path / "text.mp4")], "no video that can be read"),
        ([str(tmp_path / "short.gif")], "no video that can be read"),
        *(
            ([str(tmp_path / name)], "is one picture, no film")
            for name in ("still.jpg", "still.png", "once.mp4")
        ),
        ([str(film), "-o", str(film)], "no subtitle file"),
        ([str(film), "-o", str(tmp_path / "no" / "x.vtt")], "cannot be written"),
        ([str(film), "--longest", "0.1"], "longest scene"),
        ([str(film), "--model", "none-such"], "none-such"),
    ):
        done = subtitle(*arguments)
        assert done.returncode == 2, arguments
        assert part in done.stderr
        assert done.stderr.count("\n") == 1
    with pytest.raises(OptionsError):
        find_scenes(film, longest=float("nan"))
    with pytest.raises(SourceError):
        find_scenes(tmp_path)


def test_a_real_clip(shared: Path, tmp_path: Path) -> None:
    from edgecap.models import bundled

    if "default" not in bundled():
        pytest.skip("this checkout has no default model")
    out = tmp_path / "kitchen.vtt"
    clip = shared / "data" / "video_clips" / "kitchen_produce_480x270.mp4"
    done = subtitle(str(clip), "-o", str(out), "--beams", "1")
    assert done.returncode == 0, done.stderr
    assert out.read_text().startswith("WEBVTT")
    assert "-->" in out.read_text()
