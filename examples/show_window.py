"""Show a camera or a video with its captions in a window; q or Escape ends it.

pip install 'edgecap[window]'
python examples/show_window.py /dev/video0
"""

import sys

import edgecap
from edgecap.runtime.streams import Pipeline, StreamOptions
from edgecap.runtime.streams.options import stream_threads
from edgecap.runtime.streams.sinks import SinkContext, open_sink


def main(address: str) -> None:
    window = open_sink("window:", SinkContext(camera=address))
    captioner = edgecap.load(threads=stream_threads())  # a core is left to the camera
    with edgecap.open_source(address) as source:
        options = StreamOptions(min_interval=1.0)
        print(Pipeline(source, captioner, sinks=[window], options=options).run())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give a source: /dev/video0, clip.mp4")
    try:
        main(sys.argv[1])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
