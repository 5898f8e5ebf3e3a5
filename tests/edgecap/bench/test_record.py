"""Records as files: their schema, what is read back, what is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import msgspec
import pytest
from bench_records import make_record, make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.bench.record import (
    SCHEMA,
    VERSION,
    Record,
    check_place,
    read_record,
    schema,
    write_record,
)
from edgecap.runtime.errors import DataError

jsonschema = pytest.importorskip("jsonschema")


def test_the_schema_file_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schema()))
    jsonschema.Draft202012Validator.check_schema(schema())


def test_a_record_fits_the_schema_and_comes_back(tmp_path: Path) -> None:
    record = make_record(make_run(), make_run(2.0, count=20, beams=1))
    path = tmp_path / "record.json"
    write_record(path, record)
    jsonschema.validate(json.loads(path.read_text()), json.loads(SCHEMA.read_text()))
    assert read_record(path) == record
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_the_schema_refuses_what_the_reader_refuses(tmp_path: Path) -> None:
    good = msgspec.to_builtins(make_record(make_run(count=3)))
    path = tmp_path / "bad.json"
    for change in (
        {"version": "1"},
        {"runs": 5},
        {"more": 1},
        {"source": {**good["source"], "width": -1}},
    ):
        bad = {**good, **change}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema())
        path.write_text(json.dumps(bad))
        with pytest.raises(DataError, match="no record of"):
            read_record(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no record of"),
        ("[]", "no record of"),
        ('{"kind": "edgecap.bench"}', "no record of"),
        ("\x00\xff", "no record of"),
    ],
)
def test_what_is_no_record_is_told_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


def test_other_versions_and_cut_samples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_record(path, make_record(make_run(count=12), version=VERSION + 1))
    with pytest.raises(DataError, match="measure again"):
        read_record(path)
    write_record(path, make_record(make_run(count=12, captions=13)))
    with pytest.raises(DataError, match="12 samples, and the run 13 captions"):
        read_record(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_record(tmp_path / "absent.json")


@pytest.fixture(scope="module")
def whole() -> bytes:
    return msgspec.json.encode(make_record(make_run(count=2)))


@settings(deadline=None)
@given(data=st.data())
def test_a_damaged_record_is_refused_or_read(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(bytes(damaged))
    with contextlib.suppress(DataError):
        assert isinstance(read_record(path), Record)


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    check_place(tmp_path / "new.json")
    for bad in (tmp_path, tmp_path / "absent/new.json"):
        with pytest.raises(DataError, match="cannot be written"):
            check_place(bad)
