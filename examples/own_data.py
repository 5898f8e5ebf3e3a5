"""Your own photographs and captions as a data set: a CSV table, then JSON lines, then the checks.

python examples/own_data.py [FOLDER]      a temporary folder if not given
"""

import json
import sys
import tempfile
from pathlib import Path

import cv2
from skimage import data

import edgecap
from edgecap.training.data import dataset_splits, load_pixels, open_dataset
from edgecap.training.data.checks import check_splits

PHOTOGRAPHS = {
    "cat.jpg": (data.chelsea, ["A cat looks into the camera", "Close view of a brown cat"]),
    "woman.jpg": (data.astronaut, ["A woman in an orange suit smiles"]),
    "coffee.jpg": (data.coffee, ["A cup of coffee stands on a table", "A spoon lies by a cup"]),
    "cat-again.jpg": (data.chelsea, ["The same cat once more"]),
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (photograph, _) in PHOTOGRAPHS.items():
        cv2.imwrite(str(folder / name), photograph()[..., ::-1])

    # A row a caption; a picture with several captions has several rows.
    rows = [f'{name},"{text}"' for name, (_, texts) in PHOTOGRAPHS.items() for text in texts]
    (folder / "captions.csv").write_text("image,caption\n" + "\n".join(rows) + "\n")
    # Or a line a picture, here with a split of its own choice.
    lines = [
        json.dumps({"image": name, "caption": texts, "split": "train"})
        for name, (_, texts) in PHOTOGRAPHS.items()
    ]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")

    for table in ("captions.csv", "captions.jsonl"):
        spec = f"own:{folder}?table={table}"
        splits = {split: len(open_dataset(spec, split)) for split in dataset_splits(spec)}
        print(f"{table}: {splits}")
    for image in open_dataset(f"own:{folder}", "all"):
        height, width, _ = load_pixels(image).shape
        print(f"  {image.id} ({width} x {height}): {' / '.join(image.captions)}")

    report = check_splits([open_dataset(f"own:{folder}", "all")])
    for kind, count in report.problems.items():
        print(f"{kind}: {count}, such as {report.examples[kind][0]}")
    print(f"{len(report.usable[0])} pictures are left for training")


if __name__ == "__main__":
    try:
        if len(sys.argv) > 1:
            main(Path(sys.argv[1]))
        else:
            with tempfile.TemporaryDirectory() as temporary:
                main(Path(temporary))
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
