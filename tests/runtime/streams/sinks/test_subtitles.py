"""Subtitle files, read back by FFmpeg."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.sinks.subtitles import Subtitles, write_subtitles
from edgecap.runtime.streams.told import tell

av = pytest.importorskip("av", reason="PyAV reads the files back")
pytest.importorskip("pysubs2", reason="pysubs2 writes them")
Cue = tuple[float, float, str]
Make = Callable[..., Event]


def read(path: Path) -> list[Cue]:
    """Start, end and words of each cue as FFmpeg understands them."""
    cues = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            if packet.pts is None:
                continue
            start, length = (float(t * stream.time_base) for t in (packet.pts, packet.duration))
            words = b" ".join(found.dialogue for found in packet.decode())
            text = words.decode().replace(r"\N", " ").replace("\n", " ")
            cues.append((round(start, 3), round(start + length, 3), text))
    return cues


@pytest.mark.parametrize("name", ["film.vtt", "film.srt", "film.ass"])
def test_cues_last_until_the_next_caption(tmp_path: Path, name: str, make_event: Make) -> None:
    path = tmp_path / name
    sink = Subtitles(path, longest=10.0)
    long = "a man in a red shirt is standing next to a very large brown dog on a beach"
    sink.write(make_event("a dog", pts=0.5))
    sink.write(make_event("a dog", pts=2.0))  # the same again: one cue
    sink.write(make_event("a cat", pts=3.25))
    sink.write(tell(make_event("a cat", pts=3.5), verdict="repeat", sentence="no"))
    sink.write(tell(make_event("a blur", pts=4.0), sentence=""))  # silence
    sink.write(make_event(long, pts=6.0))
    sink.write(make_event("the end", pts=40.0))
    assert not path.exists()
    sink.close()
    assert read(path) == [
        (0.5, 3.25, "a dog"),
        (3.25, 4.0, "a cat"),
        (6.0, 16.0, long),
        (40.0, 44.0, "the end"),
    ]
    assert os.listdir(tmp_path) == [name]


def test_a_camera_begins_at_zero(tmp_path: Path, make_event: Make) -> None:
    sink = Subtitles(tmp_path / "camera.vtt")
    for frame in (10, 12):
        sink.write(make_event(f"frame {frame}", frame, pts=None))
    sink.close()
    assert read(tmp_path / "camera.vtt") == [(0.0, 2.0, "frame 10"), (2.0, 6.0, "frame 12")]


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=60),
        max_size=6,
    ),
    kind=st.sampled_from(["vtt", "srt"]),
)
def test_no_text_breaks_the_file(
    texts: list[str], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("subtitles") / f"film.{kind}"
    shown = [text for text in texts if text.split()]
    write_subtitles(path, [(2.0 * i, 2.0 * i + 1, text) for i, text in enumerate(shown)])
    if shown:  # a file without cues is no subtitle file to FFmpeg
        assert [cue[0] for cue in read(path)] == [2.0 * i for i in range(len(shown))]


def test_markup_in_a_caption_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "film.vtt"
    write_subtitles(path, [(0.0, 1.0, r"<b>sign</b> & {\i1} --> \N")])
    assert "&lt;b&gt;sign&lt;/b&gt; &amp; (/i1) --&gt;" in path.read_text()


@pytest.mark.parametrize("name", ["film.txt", "film", "no/folder.vtt", "folder.vtt"])
def test_bad_places(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.vtt").mkdir()
    with pytest.raises(SinkError, match="give a"):
        Subtitles(tmp_path / name)
