"""Say aloud what a camera shows, or write the sentences as WAV files (needs espeak-ng).

python examples/speak_captions.py /dev/video0
python examples/speak_captions.py clip.mp4 folder_for_wav_files
"""

import sys

import edgecap
from edgecap.runtime.streams import Pipeline
from edgecap.runtime.streams.narrator import Narrator
from edgecap.runtime.streams.profiles import load_profile
from edgecap.runtime.streams.sinks import open_sink


def main(address: str, folder: str | None = None) -> None:
    profile = load_profile("assistive")
    speech = open_sink("speech:" if folder is None else f"speech:?folder={folder}")
    captioner = edgecap.load()
    with edgecap.open_source(address, realtime=folder is None) as source:
        pipeline = Pipeline(
            source,
            captioner,
            sinks=[speech],
            options=profile.stream_options(),
            decoding=profile.decoding_options(),
            tell=Narrator(profile),
        )
        for event in pipeline:
            print(event.sentence)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("give a source, and a folder if sentences are to be written there")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
