"""Two cameras on one model, each with its fair share; here they are drawn.

python examples/several_cameras.py [SOURCE SOURCE ...]
"""

import contextlib
import sys

import edgecap
from edgecap.runtime.streams import Cameras, Feed, StreamOptions

addresses = sys.argv[1:] or ["test://moving", "test://flashing?fps=10"]
captioner = edgecap.load()
with contextlib.ExitStack() as stack:
    feeds = [Feed(stack.enter_context(edgecap.open_source(each))) for each in addresses]
    options = StreamOptions(max_captions=8, duration=20.0, min_interval=0.2)
    cameras = Cameras(feeds, captioner, options=options)
    for event in cameras:
        print(f"{event.source}: {event.text} [{event.latency_ms.total:.0f} ms]")
for report in cameras.reports:
    print(report)
