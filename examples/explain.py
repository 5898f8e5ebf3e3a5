"""What in a photograph each word of its caption depends on: the strongest place, and a figure.

python examples/explain.py photo.jpg explain.png
"""

import sys

import edgecap
from edgecap.occlusion import OcclusionOptions, occlusion_maps
from edgecap.runtime.image import load_image
from edgecap.training.explain import draw_maps


def main(photo: str, figure: str) -> None:
    captioner = edgecap.load()
    pixels = load_image(photo)
    options = OcclusionOptions(side=6)
    maps = occlusion_maps(captioner, pixels, channels="RGB", options=options)
    for word, falls in maps:
        row, column = divmod(int(falls.argmax()), options.side)
        print(f"{word:>12}  {falls.max():5.2f} nats at row {row + 1}, column {column + 1}")
    draw_maps(pixels, maps, figure, "Occlusion", "fall of the log-probability, nats")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a photograph and the name of the figure")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
