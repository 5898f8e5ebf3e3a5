"""Write subtitles that say what each scene of a film shows.

python examples/subtitle_film.py film.mp4 film.vtt
"""

import sys

import edgecap
from edgecap.runtime.streams.scenes import describe_scenes, find_scenes
from edgecap.runtime.streams.sinks.subtitles import Subtitles


def main(film: str, path: str) -> None:
    subtitles = Subtitles(path)
    captioner = edgecap.load()
    for scene, caption in describe_scenes(film, captioner, find_scenes(film)):
        print(f"{scene.start:7.2f} {scene.end:7.2f}  {caption}")
        subtitles.add(scene.start, scene.end, str(caption))
    subtitles.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a film and the file to write: film.mp4 film.vtt")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
