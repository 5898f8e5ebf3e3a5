"""Caption a camera or a video into an SQLite log, and look the log through.

python examples/log_to_sqlite.py clip.mp4 captions.db
python examples/log_to_sqlite.py /dev/video0 captions.db
"""

import sqlite3
import sys

import edgecap
from edgecap.runtime.streams import Pipeline, StreamOptions
from edgecap.runtime.streams.sinks import open_sink


def main(address: str, path: str) -> None:
    log = open_sink(f"sqlite:{path}?keep=100000")
    captioner = edgecap.load()
    with edgecap.open_source(address) as source:
        options = StreamOptions(min_interval=1.0, duration=60.0)
        print(Pipeline(source, captioner, sinks=[log], options=options).run())
    found = sqlite3.connect(path)
    query = "SELECT datetime(captured_at, 'unixepoch'), text FROM captions ORDER BY id DESC LIMIT 5"
    for moment, text in found.execute(query):
        print(moment, text)
    found.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a source and the log's file: clip.mp4 captions.db")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
