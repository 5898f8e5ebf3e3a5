"""Caption a camera or a video as it plays, and print a sentence whenever something changes.

python examples/stream_video.py clip.mp4
python examples/stream_video.py /dev/video0
"""

import sys
from datetime import datetime

import edgecap
from edgecap.runtime.streams import Pipeline, StreamOptions


def main(address: str) -> None:
    captioner = edgecap.load()
    options = StreamOptions(min_interval=1.0, max_age=30.0)
    with edgecap.open_source(address) as source:
        pipeline = Pipeline(source, captioner, options=options)
        for event in pipeline:
            moment = datetime.fromtimestamp(event.captured_at).strftime("%H:%M:%S")
            doubt = "" if event.sure else " (not sure)"
            latency = event.latency_ms.total
            print(f"{moment}  {event.text}{doubt}  [{event.reason}, {latency:.0f} ms]")
    print(pipeline.report)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give one source: a video, a folder of pictures, /dev/video0 or rtsp://...")
    try:
        main(sys.argv[1])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
