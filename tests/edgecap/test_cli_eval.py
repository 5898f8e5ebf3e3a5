from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import edgecap
from edgecap.cli.eval import command
from edgecap.cli.main import run
from edgecap.training.metrics import evaluate

KEYS = ["images", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]


@pytest.fixture
def photographs(tmp_path: Path, rgb_photographs: list[np.ndarray]) -> Path:
    """Real photographs in the layout of a data set, with captions by the author of this test."""
    from PIL import Image

    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    rows, names = ["image,caption_index,caption"], []
    texts = ["A cat looks into the camera .", "A woman in orange smiles .", "A cup of coffee ."]
    for number, (pixels, text) in enumerate(zip(rgb_photographs, texts, strict=True)):
        name = f"{number}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        names.append(name)
        rows += [f"{name},0,{text}", f'{name},1,"Again , {text.lower()}"']
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    (folder / "test.txt").write_text("\n".join(names) + "\n")
    return folder


@pytest.fixture(scope="session")
def rgb_photographs() -> list[np.ndarray]:
    data = pytest.importorskip("skimage.data", reason="scikit-image's photographs are needed")
    return [data.chelsea(), data.astronaut(), data.coffee()]


def score(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def test_one_json_object_with_the_scores_of_the_captions_written(
    make_bundle: Any, photographs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "captions.jsonl"
    result = score(
        make_bundle(), "--data", f"captions-csv:{photographs}", "--split", "test",
        "--beams", 2, "--batch", 2, "--threads", 1, "--json", "--output", output,
        "--metrics", "BLEU,ROUGE-L,CIDEr",
    )  # fmt: skip
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert list(report)[:7] == KEYS
    assert report["images"] == 3
    assert result.stdout.count("\n") == 1
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["image"] for row in rows] == ["0.png", "1.png", "2.png"]
    from edgecap.training.data import open_dataset

    references = open_dataset(f"captions-csv:{photographs}", "test").references
    again = evaluate({row["image"]: row["caption"] for row in rows}, references)
    for key in KEYS[1:]:
        assert report[key] == pytest.approx(again.corpus[key])
        assert [row[key] for row in rows] == pytest.approx(list(again.per_image[key].values()))
    assert report["mean_confidence"] == pytest.approx(np.mean([r["confidence"] for r in rows]))
    captioner = edgecap.load(make_bundle(), threads=1)
    for row in rows:
        alone = captioner(photographs / "images" / row["image"], beams=2)
        assert alone.text == row["caption"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_table_with_intervals_and_a_json_list(
    make_bundle: Any, photographs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "captions.json"
    result = score(
        make_bundle(), "--data", f"flickr8k:{photographs}", "--split", "test",
        "--limit", 2, "--intervals", "--output", output, "--metrics", "BLEU,ROUGE-L,CIDEr",
    )  # fmt: skip
    assert result.exit_code == 0
    assert "2 images" in result.stdout
    for key in (*KEYS[1:], "95 %", " to "):
        assert key in result.stdout
    assert len(json.loads(output.read_text())) == 2


def test_all_metrics_unless_some_are_asked_for(make_bundle: Any, photographs: Path) -> None:
    result = score(make_bundle(), "--data", f"flickr8k:{photographs}", "--split", "test", "--json")
    report = json.loads(result.stdout)
    left_out = [line.partition(" left out: ")[0] for line in result.stderr.splitlines()]
    for key in (*KEYS, "METEOR", "CIDEr-D", "SPICE"):
        assert (key in report) != (key in left_out), key
    assert report["CIDEr-D"] == pytest.approx(report["CIDEr"], abs=1e-9)


def test_pictures_without_a_file_are_left_out_and_said(make_bundle: Any, photographs: Path) -> None:
    (photographs / "images" / "1.png").unlink()
    result = score(make_bundle(), "--data", f"flickr8k:{photographs}", "--split", "test", "--json")
    report = json.loads(result.stdout)
    assert (report["images"], report["left_out"]) == (2, 1)
    assert "left out: 1 images without a file (such as '1.png')" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "flickr8k:{set}", "--split", "dev"], "unknown split 'dev'"),
        (["--data", "nothing:{set}", "--split", "test"], "unknown data set 'nothing'"),
        (["--data", "{set}", "--split", "test"], "NAME:FOLDER"),
        (
            ["--data", "flickr8k:{set}", "--split", "test", "--output", "{set}/no/c.json"],
            "no folder",
        ),
        (["--data", "flickr8k:{set}"], "--split"),
        (["--data", "flickr8k:{set}", "--split", "test", "--batch", "0"], "--batch"),
        (["--data", "flickr8k:{set}", "--split", "test", "--beams", "99"], "beams"),
        (["--data", "flickr8k:{set}", "--split", "test", "--metrics", "X"], "unknown metric 'X'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    make_bundle: Any, photographs: Path, capsys: Any, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(["eval", str(make_bundle()), *(a.format(set=photographs) for a in arguments)])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert "Traceback" not in said.err


def test_the_default_bundle_on_photographs_it_never_saw(shared: Path) -> None:
    if not (Path(edgecap.__file__).parent / "models" / "default.edgecap").is_file():
        pytest.skip("the default bundle is not in edgecap/models")
    result = score(
        "default", "--data", f"flickr8k:{shared / 'data/flickr8k'}", "--split", "val",
        "--limit", 40, "--threads", 1, "--json",
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report["images"] == 40
    assert report["CIDEr"] > 0.2
    assert report["BLEU-4"] > 0.1
    assert 0 < report["mean_confidence"] < 1
