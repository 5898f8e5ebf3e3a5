"""Publish the captions of a camera or a video to ROS 2 nodes, without ROS.

python examples/publish_dds.py clip.mp4
python examples/publish_dds.py /dev/video0 dds://porch/captions?durability=transient_local
"""

import sys

import edgecap
from edgecap.runtime.streams import Pipeline, StreamOptions
from edgecap.runtime.streams.sinks import open_sink


def main(address: str, topic: str = "dds://edgecap/caption_text") -> None:
    captioner = edgecap.load()
    with edgecap.open_source(address) as source:
        options = StreamOptions(min_interval=0.5, duration=60.0)
        print(Pipeline(source, captioner, sinks=[open_sink(topic)], options=options).run())


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("give a source, and a topic if you like: clip.mp4 dds://porch/captions")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
