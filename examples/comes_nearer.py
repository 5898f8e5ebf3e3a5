"""Say who comes nearer, with a detector of your own beside the captioner.

python examples/comes_nearer.py clip.mp4 yolox_nano.onnx

YOLOX in ONNX comes from its authors' releases (Megvii-BaseDetection/YOLOX, Apache-2.0).
"""

import sys
import tempfile
from pathlib import Path

import edgecap
from edgecap.runtime.streams import Pipeline
from edgecap.runtime.streams.narrator import Narrator, preparation
from edgecap.runtime.streams.profiles import load_profile


def main(address: str, detector: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.yaml")
        model = Path(detector).resolve()
        path.write_text(f"extends: assistive\nnearness:\n  detector: {model}\n")
        profile = load_profile(path)
    captioner = edgecap.load()
    with edgecap.open_source(address, realtime=False) as source:
        pipeline = Pipeline(
            source,
            captioner,
            options=profile.stream_options(),
            decoding=profile.decoding_options(),
            prepare=preparation(profile, source),
            tell=Narrator(profile),
        )
        for event in pipeline:
            near = "".join(f"  [{thing.seconds:.1f} s away]" for thing in event.nearer)
            print(f"{event.pts or 0.0:6.1f} s  {event.sentence}{near}")
    print(pipeline.report)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a source (a video, /dev/video0 or rtsp://...) and a YOLOX model in ONNX")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
