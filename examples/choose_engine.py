"""What runs the model on this machine, why no better engine does, and a caption by it.

python examples/choose_engine.py photo.jpg            the best that runs here
python examples/choose_engine.py photo.jpg tensorrt   this one; the CPU where there is no driver
"""

from __future__ import annotations

import sys

import edgecap

photo, *wish = sys.argv[1:]
captioner = edgecap.load(engine=wish[0] if wish else "auto")
print("\n".join(captioner.engine_choice.lines()))
caption = captioner(photo)
print(f"{caption}  [{caption.timings.total:.1f} ms]")
