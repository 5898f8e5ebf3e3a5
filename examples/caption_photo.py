"""Caption photographs with a confidence and runners-up.

python examples/caption_photo.py photo.jpg another.png
"""

import sys

import edgecap


def main(paths: list[str]) -> None:
    captioner = edgecap.load()
    for path in paths:
        caption = captioner(path, beams=4, num_return_sequences=3)
        print(f"{path}: {caption}  (confidence {caption.confidence:.2f})")
        for other in caption.alternatives:
            print(f"    or: {other.text}")
        print(f"    {caption.timings.total:.0f} ms, {caption.timings.steps} steps")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give at least one photograph")
    try:
        main(sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
