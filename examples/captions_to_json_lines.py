"""Caption a camera, a video or a folder into a file of JSON lines, and read them back.

python examples/captions_to_json_lines.py clip.mp4 captions.jsonl
"""

import json
import sys
from pathlib import Path

import edgecap
from edgecap.runtime.streams import Pipeline, StreamOptions
from edgecap.runtime.streams.options import stream_threads
from edgecap.runtime.streams.sinks import open_sink


def main(address: str, path: str) -> None:
    lines = open_sink(f"json:{path}")
    captioner = edgecap.load(threads=stream_threads())  # a core is left to the camera
    with edgecap.open_source(address) as source:
        options = StreamOptions(min_interval=1.0, duration=60.0)
        print(Pipeline(source, captioner, sinks=[lines], options=options).run())
    for line in Path(path).read_text(encoding="utf-8").splitlines()[-5:]:
        event = json.loads(line)
        if "notice" not in event:
            print(event["captured_at"], event["source"], event["text"])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a source and the file to append to: clip.mp4 captions.jsonl")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
