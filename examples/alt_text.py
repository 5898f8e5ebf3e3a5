"""Alternative texts for a folder of photographs, as XMP side-cars and as a page to look through.

python examples/alt_text.py shop texts

Side-cars and the page go to the second folder; the photographs stay as they are.
"""

import sys
from pathlib import Path

import edgecap
from edgecap.photos.ahead import caption_photographs
from edgecap.photos.alt_text import write_all
from edgecap.photos.walk import find
from edgecap.photos.writers import WriteOptions, open_writer


def main(folder: str, out: str) -> None:
    captioner = edgecap.load()
    photographs = find(folder).photographs
    Path(out).mkdir(exist_ok=True)
    for options in (
        WriteOptions(format="xmp", out=Path(out)),
        WriteOptions(format="html", out=Path(out) / "index.html"),
    ):
        writer = open_writer(options)
        captions = caption_photographs(captioner, photographs, captioner.options(beams=4))
        for photograph, error in write_all(captions, writer, not_sure="mark"):
            if error is not None:
                print(f"{photograph.relative}: {error}")
        print(f"{options.format}: {writer.written} written, {writer.kept} kept as they were")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a folder of photographs and one for the texts")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
