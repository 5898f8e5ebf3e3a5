"""Draw captions into a video.

python examples/annotate_video.py clip.mp4 annotated.mp4
"""

import sys

import edgecap
from edgecap.runtime.streams import Pipeline, StreamOptions
from edgecap.runtime.streams.sinks import SinkContext, open_sink


def main(address: str, path: str) -> None:
    captioner = edgecap.load()
    # Every frame in turn, and the encoder is waited for: nothing is left out.
    with edgecap.open_source(address, realtime=False) as source:
        sink = open_sink(f"video:{path}", SinkContext(patient=True))
        options = StreamOptions(min_interval=1.0)
        print(Pipeline(source, captioner, sinks=[sink], options=options).run())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a video and the file to write: clip.mp4 annotated.mp4")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
