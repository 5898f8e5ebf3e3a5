from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgecap.cli.main import run
from edgecap.cli.score import command
from edgecap.training.metrics import evaluate

QUICK = "BLEU,ROUGE-L,CIDEr,CIDEr-D"
QUICK_KEYS = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr", "CIDEr-D"]
HYPOTHESES = {
    "1": "a brown dog runs through the grass",
    "2": "two children play football",
    "3": "a man rides a bike",
}
REFERENCES = {
    "1": ["A dog is running in a field .", "The brown dog runs over the lawn ."],
    "2": ["Two kids play soccer in a park .", "Children with a ball ."],
    "3": ["A man is riding his bicycle .", "Someone cycles along a street ."],
}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "h.json", HYPOTHESES), write(tmp_path / "r.json", REFERENCES)


def score(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def test_one_json_object_equal_to_evaluate(files: tuple[Path, Path]) -> None:
    result = score(*files, "--json", "--metrics", QUICK.lower())
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    report = json.loads(result.stdout)
    assert list(report) == ["images", *QUICK_KEYS]
    assert report.pop("images") == 3
    assert report == evaluate(HYPOTHESES, REFERENCES, QUICK.split(",")).corpus


def test_coco_files_score_as_plain_ones(files: tuple[Path, Path], tmp_path: Path) -> None:
    results = [{"image_id": int(i), "caption": text} for i, text in HYPOTHESES.items()]
    rows = [(i, text) for i, texts in REFERENCES.items() for text in texts]
    annotations = {
        "images": [{"id": int(i)} for i in REFERENCES],
        "annotations": [
            {"id": n, "image_id": int(i), "caption": text} for n, (i, text) in enumerate(rows)
        ],
    }
    coco = write(tmp_path / "result.json", results), write(tmp_path / "val.json", annotations)
    options = ("--json", "--metrics", QUICK, "--intervals")
    assert score(*coco, *options).stdout == score(*files, *options).stdout


def test_all_metrics_with_intervals_and_scores_per_picture(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    if not all(importlib.util.find_spec(name) for name in ("pycocoevalcap", "snowballstemmer")):
        pytest.skip("the files of METEOR are not installed")
    output = tmp_path / "scores.jsonl"
    result = score(*files, "--json", "--intervals", "--output", output)
    report = json.loads(result.stdout)
    said = [line.partition(" left out: ")[0] for line in result.stderr.splitlines()]
    keys = [*QUICK_KEYS[:4], "METEOR", *QUICK_KEYS[4:], *([] if "SPICE" in said else ["SPICE"])]
    assert said in ([], ["SPICE"])
    assert list(report) == ["images", *keys, "intervals"]
    assert list(report["intervals"]) == keys
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["image"] for row in rows] == list(HYPOTHESES)
    for key in keys:
        low, high = report["intervals"][key]
        assert low <= report[key] <= high
        assert all(key in row for row in rows)
    assert 0.2 < report["METEOR"] < 0.6


def test_a_table(files: tuple[Path, Path]) -> None:
    result = score(*files, "--metrics", "CIDEr-D", "--intervals")
    for text in ("3 images", "CIDEr-D", "95 %", " to "):
        assert text in result.stdout
    assert "BLEU" not in result.stdout


def test_a_metric_without_its_files_is_left_out_unless_asked_for(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from edgecap.runtime.errors import MissingExtraError
    from edgecap.training.metrics import meteor

    def absent() -> None:
        raise MissingExtraError("METEOR needs something:\ninstall it")

    monkeypatch.setattr(meteor, "_shared", absent)
    result = score(*files, "--json")
    assert "METEOR left out: METEOR needs something: install it\n" in result.stderr
    assert "METEOR" not in json.loads(result.stdout)
    with pytest.raises(SystemExit) as caught:
        run(["score", *map(str, files), "--metrics", "BLEU,METEOR"])
    assert caught.value.code == 2
    assert "install it" in capsys.readouterr().err


def test_a_subset(files: tuple[Path, Path], tmp_path: Path) -> None:
    part = write(tmp_path / "part.json", {"2": HYPOTHESES["2"]})
    result = score(part, files[1], "--subset", "--json", "--metrics", "BLEU")
    assert json.loads(result.stdout)["images"] == 1


def test_empty_and_foreign_captions_are_scored(tmp_path: Path, files: tuple[Path, Path]) -> None:
    odd = {"1": "", "2": "zwei Kinder spielen Fußball", "3": "一个男人骑自行车"}
    result = score(write(tmp_path / "odd.json", odd), files[1], "--json", "--metrics", QUICK)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["BLEU-1"] < 0.01


@pytest.mark.parametrize(
    ("hypotheses", "references", "options", "message"),
    [
        ({"1": "a"}, REFERENCES, [], "2 of 3 images with references have no caption, such as '2'"),
        ({**HYPOTHESES, "4": "a"}, REFERENCES, [], "1 of 4 images have no reference captions"),
        ([{"image_id": 1, "caption": "a"}] * 2, REFERENCES, [], "more than one caption"),
        ("{", REFERENCES, [], "not valid JSON"),
        (HYPOTHESES, "[", [], "not valid JSON"),
        (REFERENCES, REFERENCES, [], "no text as caption"),
        (HYPOTHESES, HYPOTHESES, [], "no list of captions"),
        (HYPOTHESES, [1], [], "holds a list"),
        ("3", REFERENCES, [], "holds a number"),
        ({}, {}, [], "no captions to score"),
        ({"9": "a"}, REFERENCES, ["--subset"], "'9'"),
        (HYPOTHESES, REFERENCES, ["--metrics", "BLEU,ROUGE"], "unknown metric 'ROUGE'"),
        (HYPOTHESES, REFERENCES, ["--metrics", ""], "unknown metric ''"),
        (HYPOTHESES, REFERENCES, ["--output", "/none/of/this/x.json"], "no folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    capsys: Any,
    hypotheses: Any,
    references: Any,
    options: list[str],
    message: str,
) -> None:
    files = write(tmp_path / "h.json", hypotheses), write(tmp_path / "r.json", references)
    with pytest.raises(SystemExit) as caught:
        run(["score", *map(str, files), *options])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.count("\n") == 1


def test_absent_files(tmp_path: Path, files: tuple[Path, Path], capsys: Any) -> None:
    for pair in ((tmp_path / "no.json", files[1]), (files[0], tmp_path / "no.json")):
        with pytest.raises(SystemExit) as caught:
            run(["score", *map(str, pair)])
        assert caught.value.code == 2
        assert "cannot read" in capsys.readouterr().err
