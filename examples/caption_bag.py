"""Caption the images of a ROS 2 bag and record the captions in another.

python examples/caption_bag.py drive.mcap captions.mcap
"""

import sys

import edgecap
from edgecap.runtime.streams import Pipeline
from edgecap.runtime.streams.sinks import open_sink


def main(bag: str, out: str) -> None:
    captioner = edgecap.load()
    with edgecap.open_source(bag, realtime=False) as source:
        for event in Pipeline(source, captioner, sinks=[open_sink(out)]):
            if event.header is not None:
                print(f"{event.header.sec}.{event.header.nanosec:09d}", event.text)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a bag and the file for its captions: drive.mcap captions.mcap")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
