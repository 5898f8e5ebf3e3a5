"""Captions real photographs from scikit-image, first one by one, then as a stream.

Run: python examples/demo.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
from skimage import data

PHOTOGRAPHS = ("cat", "coffee", "astronaut", "rocket", "brick")


def main() -> None:
    edgecap = [sys.executable, "-m", "edgecap"]
    with tempfile.TemporaryDirectory() as folder:
        for name in PHOTOGRAPHS:
            pixels = getattr(data, name)()
            colour = cv2.COLOR_RGB2BGR if pixels.ndim == 3 else cv2.COLOR_GRAY2BGR
            cv2.imwrite(f"{folder}/{name}.jpg", cv2.cvtColor(pixels, colour))
        paths = sorted(str(path) for path in Path(folder).glob("*.jpg"))
        print("$ edgecap caption *.jpg", flush=True)
        subprocess.run([*edgecap, "caption", *paths], check=True)
        print("\n$ edgecap stream FOLDER --no-realtime", flush=True)
        subprocess.run([*edgecap, "stream", folder, "--no-realtime"], check=True)


if __name__ == "__main__":
    main()
