"""Tell who comes and goes in front of a camera, with a part of the picture kept private.

python examples/profile_smart_home.py clip.mp4
"""

import sys
import tempfile
from pathlib import Path

import edgecap
from edgecap.runtime.streams import Pipeline
from edgecap.runtime.streams.narrator import Narrator, preparation
from edgecap.runtime.streams.profiles import load_profile

MINE = """
extends: smart-home
stream:
  max_age: 5 s
  unsure: mark
presence:
  appear: 1
privacy:
  zones: [[[0, 0], [0.2, 0], [0.2, 1], [0, 1]]]   # the left fifth
"""


def main(address: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.yaml")
        path.write_text(MINE)
        profile = load_profile(path)
    captioner = edgecap.load()
    with edgecap.open_source(address, realtime=False) as source:
        pipeline = Pipeline(
            source,
            captioner,
            options=profile.stream_options(),
            prepare=preparation(profile, source),
            tell=Narrator(profile),
        )
        for event in pipeline:
            print(f"{event.pts or 0.0:6.1f} s  {event.sentence}")
    print(pipeline.report)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give one source: a video, /dev/video0 or rtsp://...")
    try:
        main(sys.argv[1])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
