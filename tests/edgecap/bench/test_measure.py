"""Real runs of a tiny model: what is kept, how they end, what they refuse."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecap.bench.equality import check_apart, check_equality, some_pictures
from edgecap.bench.measure import Bench, Step, short_name
from edgecap.bench.options import BenchOptions, whole_numbers
from edgecap.bench.record import STAGES, TOTAL, Record
from edgecap.bench.stages import Stages
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.base import Encoded
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.errors import EngineError, OptionsError, SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Picture
from edgecap.runtime.streams.sources.generated import GeneratedSource


def measure(
    model: Path, tell: Callable[[Step], None] = lambda step: None, **options: object
) -> Record:
    given = {"engines": ("onnxruntime",), "duration": 30.0, "captions": 120, "warm_up": 3}
    return Bench(model, BenchOptions(**{**given, **options}), "edgecap bench", tell).run()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def record(tiny_bundle: Path) -> Record:
    return measure(tiny_bundle, beams=(1, 2))


def test_each_combination_is_a_run_with_its_stages(record: Record) -> None:
    assert [run.beams for run in record.runs] == [1, 2]
    for run in record.runs:
        assert run.ended == "max captions"
        assert run.captions == 120
        assert run.warm_up == 3
        assert run.received >= 123
        assert set(run.samples) == {*STAGES, TOTAL}
        assert run.stages[TOTAL].p99 is not None
        columns = np.array([run.samples[name] for name in STAGES])
        assert (columns >= 0).all()
        np.testing.assert_allclose(columns.sum(0), run.samples[TOTAL], atol=1e-3)
        # Captions follow each other: together they fill the measured time, and do not exceed it
        # by more than what is delivered while the next frame is being captioned.
        inside = columns[:-1].sum() / 1e3
        assert 0 < inside <= run.seconds + 1e-3
        assert run.captions_per_second == pytest.approx(120 / run.seconds, rel=1e-3)
        assert run.equality.passed
        assert run.equality.same == run.equality.pictures == 10
        assert run.cold is not None
        assert run.cold.first_caption_ms > 0
        assert run.usage is not None
        assert run.usage.peak_rss_mb > 10
        assert run.before is not None
        assert run.after is not None


def test_the_source_is_told(record: Record) -> None:
    assert record.source.generated
    assert (record.source.name, record.source.width) == ("test://moving", 640)


def test_a_source_that_ends_early_keeps_what_came(tiny_bundle: Path) -> None:
    record = measure(tiny_bundle, source="test://moving?frames=23&width=64&height=48")
    (run,) = record.runs
    assert (run.ended, run.captions, run.received) == ("end of source", 20, 23)
    assert run.stages[TOTAL].p99 is None
    assert run.stages[TOTAL].p90 is not None
    assert (record.source.width, record.source.height) == (64, 48)
    assert not record.source.generated


def test_a_source_that_ends_in_the_warm_up_has_its_cold_caption_alone(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "one.png"
    cv2.imwrite(str(picture), np.full((40, 50, 3), 90, np.uint8))
    (run,) = measure(tiny_bundle, source=str(picture)).runs
    assert (run.ended, run.captions, run.warm_up) == ("end of source", 0, 1)
    assert run.stages == {}
    assert run.cold is not None
    (again,) = measure(tiny_bundle, source=str(picture), loop=True, captions=12).runs
    assert again.captions == 12


def test_a_duration_ends_a_run_even_while_the_camera_gives_nothing(tiny_bundle: Path) -> None:
    # A frame a second: the duration is over long before the second one after the warm-up.
    begin = time.monotonic()
    record = measure(
        tiny_bundle, source="test://moving?fps=1", realtime=True, duration=0.2, warm_up=1
    )
    assert record.source.live
    assert record.runs[0].ended == "duration"
    assert record.runs[0].captions == 0
    assert time.monotonic() - begin < 60


class Lost(GeneratedSource):
    """A camera whose cable is pulled after some frames."""

    frames = 30

    def _next(self) -> Picture | None:
        if self._index == self.frames:
            raise SourceError("the cable was pulled")
        return super()._next()


@pytest.mark.parametrize("frames", [0, 30])
def test_a_camera_that_is_lost_keeps_what_came(tiny_bundle: Path, frames: int) -> None:
    source = Lost("test://moving", SourceOptions(realtime=False))
    source.frames = frames
    stages = Stages(
        source,
        Captioner(tiny_bundle),
        beams=1,
        duration=60.0,
        captions=None,
        warm_up=5,
        watched=[],
        seen=lambda count, seconds: None,
    )
    if not frames:
        with pytest.raises(SourceError, match="pulled"):
            stages.run()
        return
    measured = stages.run()
    assert (measured.ended, measured.problem) == ("source lost", "the cable was pulled")
    assert len(measured.rows) == 25


def test_stop_keeps_what_was_measured_and_begins_nothing_new(tiny_bundle: Path) -> None:
    options = BenchOptions(engines=("onnxruntime",), beams=(1, 2), warm_up=2)
    bench: Bench

    def tell(step: Step) -> None:
        if step.share:
            bench.stop()

    bench = Bench(tiny_bundle, options, "edgecap bench", tell)
    record = bench.run()
    assert record.interrupted
    (run,) = record.runs
    assert run.ended == "stopped"
    assert run.captions >= 1
    assert len(run.samples[TOTAL]) == run.captions


def test_a_bad_source_and_a_bad_engine_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        measure(tiny_bundle, source="/absent/clip.mp4")
    with pytest.raises(EngineError, match="the CPU kernels do not decode"):
        measure(tiny_bundle, engines=("native",))


class Negative(OnnxEngine):
    """A broken engine: it sees the negative of every picture."""

    def encode(self, images: np.ndarray) -> Encoded:
        return super().encode(255 - images)


def test_an_engine_that_sees_something_else_is_found_out(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    pictures = some_pictures(None)
    right = check_equality(bundle, OnnxEngine(bundle), "onnxruntime", pictures, 2)
    wrong = check_equality(bundle, Negative(bundle), "onnxruntime", pictures, 2)
    assert right.passed
    assert right.same == len(pictures)
    assert not wrong.passed


def test_pictures_of_a_file_are_checked_too(tiny_bundle: Path, tmp_path: Path) -> None:
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 255, (40, 50, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    pictures = some_pictures(str(tmp_path))
    assert len(pictures) == 10
    expected = cv2.imread(str(tmp_path / "0.png"))[..., ::-1]
    np.testing.assert_array_equal(pictures[0], expected)
    assert check_apart(str(tiny_bundle), str(tmp_path), 2, 1, "onnxruntime").passed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"beams": (0,)}, "beams is 0"),
        ({"beams": (1, 1)}, "give each value once"),
        ({"threads": (-1,)}, "threads is -1"),
        ({"engines": ("warp",)}, "warp"),
        ({"duration": float("nan")}, "duration is nan"),
        ({"duration": 0.0}, "duration is 0"),
        ({"captions": 0}, "captions is 0"),
        ({"warm_up": 0}, "warm-up is 0"),
    ],
)
def test_bad_options_are_told(options: dict[str, object], says: str) -> None:
    with pytest.raises(OptionsError, match=says):
        BenchOptions(**options)  # type: ignore[arg-type]


def test_lists_of_numbers() -> None:
    assert whole_numbers("beams", None) == (None,)
    assert whole_numbers("beams", "1, 4") == (1, 4)
    for bad in ("", "1,", "a", "-1", "²", "1.5"):
        with pytest.raises(OptionsError, match="such as 1,4"):
            whole_numbers("beams", bad)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/home/someone/clips/a.mp4", "a.mp4"),
        ("file:///clips/a.mp4", "a.mp4"),
        ("rtsp://me:secret@camera/1", "rtsp://***@camera/1"),
        ("test://moving", "test://moving"),
    ],
)
def test_records_hold_no_folders_and_no_passwords(address: str, name: str) -> None:
    assert short_name(address) == name
