"""Sinks by address, and JSON lines in files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams import JsonLines
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.sinks.opening import KINDS, SinkContext, mask_password, open_sink
from edgecap.runtime.streams.sinks.sqlite_log import SqliteLog
from edgecap.runtime.streams.sinks.subtitles import Subtitles

Make = Callable[..., Event]


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("log.db", SqliteLog),
        ("sqlite:any.thing?keep=5", SqliteLog),
        ("film.VTT", Subtitles),
        ("subtitles:film.srt", Subtitles),
        ("out.jsonl", JsonLines),
        ("json:lines.txt", JsonLines),
    ],
)
def test_addresses(
    address: str,
    kind: type,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_event: Make,
) -> None:
    monkeypatch.chdir(tmp_path)
    sink = open_sink(address)
    assert isinstance(sink, kind)
    sink.write(make_event("ein Bär"))
    sink.close()
    name = address.rpartition(":")[2].partition("?")[0]
    assert (tmp_path / name).stat().st_size > 0


def test_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from edgecap.runtime.streams.sinks.annotated_video import AnnotatedVideo

    sink = open_sink(str(tmp_path / "out.mkv"), SinkContext(patient=True))
    assert isinstance(sink, AnnotatedVideo)
    sink.close()


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("", ["is no sink", ".jsonl", "mqtt:"]),
        ("pigeon:post", ["'pigeon:post' is no sink", "speech:"]),
        ("out.txt", ["is no sink"]),
        ("sqlite:", ["names no file"]),
        ("sqlite:a.db?kept=3", ["'kept' is no option", "keep"]),
        ("sqlite:a.db?keep=many", ["keep is 'many'"]),
        ("sqlite:a.db?keep=0", ["keep is 0"]),
        ("json:/no/such/folder/x", ["cannot be written", "No such file"]),
        ("mqtt://bob:hunter22@host:99999", ["***@host", "mqtt://host:1883"]),
        ("mqtt://bob:hunter22@host?clowns=1", ["'clowns' is no option", "snapshots"]),
        ("mqtt://bob:hunter22@host?snapshots=maybe", ["snapshots is 'maybe'"]),
        ("mqtt://", ["is no host"]),
        ("rtsp-server:high", ["'high' is no port", "rtsp-server:8554/porch"]),
    ],
)
def test_bad_addresses(
    address: str, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SinkError) as error:
        open_sink(address)
    for part in parts:
        assert part in str(error.value)
    assert "hunter22" not in str(error.value)


def test_every_kind_has_its_place_in_the_docs() -> None:
    text = (Path(__file__).parents[4] / "docs" / "sinks.md").read_text()
    for kind in KINDS:
        assert f"`{kind}:" in text


def test_passwords_are_masked() -> None:
    assert mask_password("mqtt://bob:p@ss@host/x") == "mqtt://***@host/x"
    assert mask_password("out@home.db") == "out@home.db"


def test_a_full_disk_leaves_whole_lines(small_disk: Path, make_event: Make) -> None:
    path = small_disk / "out.jsonl"
    sink = open_sink(str(path))
    written, failed = 0, 0
    for frame in range(400):
        try:
            sink.write(make_event("x" * 1500, frame))
            written += 1
        except OSError:
            failed += 1
    sink.close()
    assert failed > 0
    lines = path.read_text().splitlines()
    assert len(lines) == written
    assert [json.loads(line)["frame"] for line in lines] == list(range(written))
