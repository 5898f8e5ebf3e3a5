"""What is said of two records."""

from __future__ import annotations

import re

import pytest
from bench_records import make_record, make_run
from msgspec.structs import replace

from edgecap.bench.compare import Comparison, compare, verdict
from edgecap.bench.record import Equality, Run
from edgecap.bench.statistics import Ratio, restless
from edgecap.runtime.errors import OptionsError


def verdicts(before: Run, after: Run) -> dict[str, str]:
    (pair,) = compare(make_record(before), make_record(after)).pairs
    return {line.stage: line.verdict for line in pair.lines}


def test_a_faster_program_is_told_with_its_interval() -> None:
    told = verdicts(make_run(1.31, seed=1), make_run(1.0, seed=2))
    assert set(told) == {"capture_age", "preprocess", "encode", "decode", "deliver", "total"}
    found = re.fullmatch(r"faster (\S+)x \(95 % (\S+) to (\S+)\)", told["total"])
    assert found
    value, low, high = map(float, found.groups())
    assert low <= value <= high
    assert value == pytest.approx(1.31, abs=0.02)


def test_a_slower_program_is_told_the_other_way_round() -> None:
    told = verdicts(make_run(1.0, seed=1), make_run(1.5, seed=2))["total"]
    found = re.fullmatch(r"slower (\S+)x \(95 % (\S+) to (\S+)\)", told)
    assert found
    value, low, high = map(float, found.groups())
    assert low <= value <= high
    assert value == pytest.approx(1.5, abs=0.02)


def test_the_same_program_is_within_noise() -> None:
    assert set(verdicts(make_run(seed=1), make_run(seed=2)).values()) == {"within noise"}


def test_a_difference_below_what_the_machine_drifts_is_noise() -> None:
    sure = Ratio(1.04, 1.03, 1.05)
    assert verdict(sure, floor=0.01).startswith("faster")
    assert verdict(sure, floor=0.045) == "within noise"
    assert verdict(Ratio(1.2, 0.9, 1.4), floor=0.01) == "within noise"
    assert verdict(None, floor=0.01) == "too few samples"


def restless_run() -> Run:
    run = make_run(seed=3)
    usage = replace(run.usage, others_percent=80.0) if run.usage else None
    return replace(run, usage=usage, noise=restless(run.stages, usage))


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (restless_run(), "after: other programs took 80 %"),
        (make_run(2.0, count=5), "after: 5 captions, at least 10 are needed"),
        (
            make_run(2.0, count=0, equality=Equality("reference", 10, 3, 8), ended="unequal"),
            "after: its captions are not the reference's",
        ),
    ],
)
def test_what_allows_no_verdict_gets_none(after: Run, why: str) -> None:
    (pair,) = compare(make_record(make_run()), make_record(after)).pairs
    assert why in " ".join(pair.refused)
    assert {line.verdict for line in pair.lines} <= {"no verdict"}


def test_other_machines_are_refused_unless_asked_for() -> None:
    before = make_record(make_run())
    after = replace(before, machine=replace(before.machine, cpu="another processor"))
    with pytest.raises(OptionsError, match=r"another processor.*--across-machines"):
        compare(before, after)
    found = compare(before, after, across_machines=True)
    assert any("another processor" in note for note in found.notes)
    assert found.pairs


def test_other_sources_are_refused() -> None:
    before = make_record(make_run())
    after = replace(before, source=replace(before.source, name="clip.mp4", width=1280))
    with pytest.raises(OptionsError, match=r"clip\.mp4"):
        compare(before, after)


def test_runs_find_their_counterparts() -> None:
    native = {"engine": "native", "engine_summary": "own steps"}
    before = make_record(make_run(), make_run(beams=1), make_run(beams=6))
    after = make_record(make_run(beams=1, **native), make_run(), make_run(threads=1))
    found = compare(before, after)
    pairs = [(p.before.engine, p.after.engine, p.before.beams) for p in found.pairs]
    assert pairs == [("onnxruntime", "onnxruntime", 4), ("onnxruntime", "native", 1)]
    assert "2 runs have no counterpart in the other record" in found.notes
    with pytest.raises(OptionsError, match="no run in common"):
        compare(make_record(make_run(beams=2)), make_record(make_run(beams=3)))


def test_other_models_and_versions_are_noted() -> None:
    before = make_record(make_run())
    after = replace(
        before,
        model=replace(before.model, sha256="1" * 64),
        machine=replace(before.machine, versions={"onnxruntime": "0.1"}),
    )
    found: Comparison = compare(before, after)
    text = "; ".join(found.notes)
    assert "not the same file" in text
    assert "onnxruntime" in text
