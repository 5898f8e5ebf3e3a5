"""Serve a camera or a video with its captions as a network camera; watch it in any player.

python examples/serve_rtsp.py /dev/video0 8554
ffplay rtsp://localhost:8554/porch
"""

import sys

import edgecap
from edgecap.runtime.streams import Pipeline, StreamOptions
from edgecap.runtime.streams.options import stream_threads
from edgecap.runtime.streams.sinks import open_sink


def main(address: str, port: str = "8554") -> None:
    server = open_sink(f"rtsp-server:{port}/porch")
    captioner = edgecap.load(threads=stream_threads())  # a core is left to the camera
    options = StreamOptions(min_interval=1.0)
    with edgecap.open_source(address) as source:
        for event in Pipeline(source, captioner, sinks=[server], options=options):
            print(event.text)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("give a source, and a port if 8554 is taken: /dev/video0 8554")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
