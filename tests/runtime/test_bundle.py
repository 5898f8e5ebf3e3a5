"""Bundles: what is written is read, and whatever is wrong with one is said before it is used."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_models as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.bundle import MAX_MANIFEST_BYTES, read_bundle, read_manifest, write_bundle
from edgecap.runtime.errors import BundleError
from edgecap.runtime.manifest import DataEntry, Manifest, decode_manifest, encode_manifest

Entries = dict[str, bytes]


@pytest.fixture(scope="module")
def entries(tiny_bundle: Path) -> Entries:
    with zipfile.ZipFile(tiny_bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, entries: Entries, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def edited(entries: Entries, edit: Callable[[dict[str, Any]], Any]) -> Entries:
    """The entries with another manifest.json."""
    manifest = json.loads(entries["manifest.json"])
    edit(manifest)
    return {**entries, "manifest.json": json.dumps(manifest).encode()}


def refused(path: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest, files = tiny.parts(training_data=(DataEntry("photos", "CC0", "captions"),))
    written = write_bundle(tmp_path / "a.edgecap", manifest, files)
    bundle = read_bundle(str(tmp_path / "a.edgecap"))
    assert bundle.manifest == written == read_manifest(tmp_path / "a.edgecap")
    assert bundle.files == files
    assert msgspec.structs.replace(bundle.manifest, files={}) == manifest


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    manifest, files = tiny.parts()
    write_bundle(tmp_path / "a.edgecap", manifest, files)
    write_bundle(tmp_path / "b.edgecap", manifest, dict(reversed(files.items())))
    assert (tmp_path / "a.edgecap").read_bytes() == (tmp_path / "b.edgecap").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.edgecap", "b.edgecap"]


def test_what_does_not_shrink_is_stored(tmp_path: Path, tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    floats = np.random.default_rng(0).standard_normal(17 << 20, np.float32).tobytes()
    files = {**bundle.files, "a.onnx": floats, "b.onnx": floats[: 1 << 20]}
    write_bundle(tmp_path / "x.edgecap", bundle.manifest, files)
    with zipfile.ZipFile(tmp_path / "x.edgecap") as archive:
        assert archive.getinfo("a.onnx").compress_type == zipfile.ZIP_STORED
        assert archive.getinfo("b.onnx").compress_type == zipfile.ZIP_DEFLATED
    assert read_bundle(tmp_path / "x.edgecap").files == files


def test_a_failed_write_leaves_the_old_bundle(tmp_path: Path) -> None:
    manifest, files = tiny.parts()
    path = tmp_path / "a.edgecap"
    write_bundle(path, manifest, files)
    before = path.read_bytes()
    with pytest.raises(BundleError, match=r"graphs\.decoder names the file 'decoder\.onnx'"):
        write_bundle(path, manifest, {"encoder.onnx": b"", "tokenizer.json": b""})
    with pytest.raises(BundleError, match="no plain file name"):
        write_bundle(path, manifest, {**files, "../x": b""})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.edgecap"]
    with pytest.raises(BundleError, match="cannot write"):
        write_bundle(tmp_path / "no folder" / "a.edgecap", manifest, files)


def test_deflate_is_read(tmp_path: Path, entries: Entries) -> None:
    path = pack(tmp_path / "a.edgecap", entries, zipfile.ZIP_DEFLATED)
    assert read_bundle(path).files["tokenizer.json"] == entries["tokenizer.json"]
    refused(pack(tmp_path / "b.edgecap", entries, zipfile.ZIP_LZMA), "other than deflate")


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "no.edgecap", r"does not exist; give the path of a \.edgecap file")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty").touch()
    refused(tmp_path / "empty", r"damaged, cut short or no \.edgecap bundle")
    (tmp_path / "text").write_text("hello " * 100)
    refused(tmp_path / "text", "damaged")


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.9, 0.999])
def test_cut_short(tmp_path: Path, tiny_bundle: Path, kept: float) -> None:
    data = tiny_bundle.read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(len(data) * kept)])
    refused(tmp_path / "cut", "damaged, cut short")


def test_another_zip_file(tmp_path: Path) -> None:
    refused(pack(tmp_path / "a.zip", {"readme.txt": b"hello"}), r"manifest\.json is missing")


def test_wrong_hash(tmp_path: Path, entries: Entries) -> None:
    damaged = bytearray(entries["encoder.onnx"])
    damaged[100] ^= 1
    path = pack(tmp_path / "a", {**entries, "encoder.onnx": bytes(damaged)})
    refused(path, r"encoder\.onnx does not match its sha256")


def test_a_flipped_bit_without_a_new_checksum(tmp_path: Path, tiny_bundle: Path) -> None:
    data = bytearray(tiny_bundle.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a").write_bytes(data)
    refused(tmp_path / "a", "damaged")


def test_wrong_size_and_missing_and_extra_files(tmp_path: Path, entries: Entries) -> None:
    longer = {**entries, "decoder.onnx": entries["decoder.onnx"] + b"x"}
    refused(pack(tmp_path / "a", longer), r"decoder\.onnx has \d+ bytes, the manifest says \d+")
    fewer = {name: data for name, data in entries.items() if name != "tokenizer.json"}
    refused(pack(tmp_path / "b", fewer), r"tokenizer\.json is in the manifest's table .*, not in")
    refused(pack(tmp_path / "c", {**entries, "extra.so": b""}), r"'extra\.so' is in the bundle")


@pytest.mark.parametrize(
    "name",
    ["../escape", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "C:x", "x\0.onnx", "folder/"],
)
def test_names_that_climb_out(tmp_path: Path, entries: Entries, name: str) -> None:
    path = pack(tmp_path / "a", {**entries, "placeholder": b""})
    # Written over in the raw bytes: the zipfile module would tidy the name up.
    data = path.read_bytes()
    raw = name.encode()
    if len(raw) <= len("placeholder") and name != "folder/":
        raw = raw.ljust(len("placeholder"), raw[-1:] if raw[-1:] != b"\0" else b"x")
        path.write_bytes(data.replace(b"placeholder", raw))
    else:
        path = pack(tmp_path / "b", {**entries, name: b""})
    refused(path, "is no plain file name")


def test_climbing_names_in_the_manifest(tmp_path: Path, entries: Entries) -> None:
    def climb(manifest: dict[str, Any]) -> None:
        manifest["files"]["../encoder.onnx"] = manifest["files"].pop("encoder.onnx")
        manifest["graphs"]["encoder"]["file"] = "../encoder.onnx"

    refused(pack(tmp_path / "a", edited(entries, climb)), "is no plain file name")


def test_links_and_duplicates_and_encryption(tmp_path: Path, entries: Entries) -> None:
    link = zipfile.ZipInfo("encoder.onnx")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    others = {name: data for name, data in entries.items() if name != "encoder.onnx"}
    path = pack(tmp_path / "a", others)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(path, "is a link or a special file")

    path = pack(tmp_path / "b", entries)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("encoder.onnx", entries["encoder.onnx"])
    refused(path, "is there twice")

    path = pack(tmp_path / "c", entries)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "is encrypted")


def test_declared_sizes_are_checked_before_anything_is_unpacked(
    tmp_path: Path, entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "a", entries)
    data = bytearray(path.read_bytes())
    for name in ("encoder.onnx", "decoder.onnx"):
        at = data.rindex(name.encode()) - 46  # its line in the table of contents
        data[at + 24 : at + 28] = (0xFFFF0000).to_bytes(4, "little")
    path.write_bytes(data)
    huge = pack(tmp_path / "b", {**entries, "manifest.json": b" " * (MAX_MANIFEST_BYTES + 1)})

    def never(*_: Any) -> None:
        raise AssertionError("unpacked before the sizes were checked")

    monkeypatch.setattr(zipfile.ZipFile, "read", never)
    refused(path, r"its files declare \d+ bytes; at most 2147483648 are read")
    refused(huge, r"manifest\.json declares 1048577 bytes")


def test_a_bomb_that_declares_little_gives_little(tmp_path: Path, entries: Entries) -> None:
    """Deflated zeros far beyond the declared size: what is unpacked ends at that size."""
    bomb = {**entries, "encoder.onnx": b"\0" * 50_000_000}
    path = pack(tmp_path / "a", bomb, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"encoder.onnx") - 46
    data[at + 24 : at + 28] = len(entries["encoder.onnx"]).to_bytes(4, "little")
    path.write_bytes(data)
    refused(path, r"damaged|does not match its sha256")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(schema_version=2), "schema_version is 2, .* up to 1; upgrade edgecap"),
        (lambda m: m.update(schema_version=0), "schema_version is 0"),
        (lambda m: m.update(schema_version="1"), r"at `\$\.schema_version`"),
        (lambda m: m.pop("name"), "missing required field `name`"),
        (
            lambda m: m["image"].update(size="big"),
            r"Expected `int`, got `str` - at `\$\.image\.size`",
        ),
        (lambda m: m["image"].update(size=0), r"\$\.image\.size"),
        (lambda m: m["image"].update(channels="BGR"), r"\$\.image\.channels"),
        (lambda m: m["image"].update(resize="pad"), r"\$\.image\.resize"),
        (lambda m: m["image"].update(resample="nearest"), r"\$\.image\.resample"),
        (lambda m: m["image"].update(resize_to=16), "resize_to is 16, less than image.size, 32"),
        (lambda m: m["files"]["encoder.onnx"].update(sha256="zz"), r"\$\.files\[\.\.\.\]\.sha256"),
        (lambda m: m["files"]["encoder.onnx"].update(bytes=-1), r"\$\.files\[\.\.\.\]\.bytes"),
        (lambda m: m.update(max_positions=4), "max_new_tokens is 8, more than max_positions, 4"),
        (lambda m: m["tokenizer"].update(eos=99), r"tokenizer\.eos is 99; ids end at 21"),
        (lambda m: m["decoding"].update(beams=99), "decoding defaults: beams is 99"),
        (lambda m: m["decoding"].update(suppress_tokens=[99]), "suppress_tokens has an id past"),
        (lambda m: m["tokenizer"].update(file="x.json"), r"names the file 'x\.json'"),
        (lambda m: m["files"].clear(), r"names the file 'encoder\.onnx'"),
        (lambda m: m.update(metrics={"a": {"b": {"c": {"d": "high"}}}}), "Expected `float`"),
    ],
)
def test_manifests_that_are_wrong(
    tmp_path: Path, entries: Entries, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    refused(pack(tmp_path / "a", edited(entries, edit)), message)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_manifests_that_are_not_json_objects(tmp_path: Path, entries: Entries, data: bytes) -> None:
    path = pack(tmp_path / "a", {**entries, "manifest.json": data})
    refused(path, r"manifest\.json cannot be read")


def test_fields_of_a_later_minor_version_are_ignored(tmp_path: Path, entries: Entries) -> None:
    def add(manifest: dict[str, Any]) -> None:
        manifest["colour"] = "green"
        manifest["image"]["crop"] = {"nested": [1, 2]}

    bundle = read_bundle(pack(tmp_path / "a", edited(entries, add)))
    assert bundle.manifest.name == "tiny"


def test_manifest_round_trip() -> None:
    manifest, _ = tiny.parts()
    assert decode_manifest(encode_manifest(manifest)) == manifest
    assert isinstance(decode_manifest(encode_manifest(manifest)), Manifest)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_is_a_bundle_error_or_harmless(
    data: st.DataObject, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bytes written over, cut out or doubled anywhere: an error of ours, or the same bundle."""
    raw = bytearray(tiny_bundle.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1) | st.integers(len(raw) - 400, len(raw) - 1))
        piece = data.draw(st.binary(max_size=8))
        raw[at : at + data.draw(st.integers(0, 8))] = piece
    path = tmp_path_factory.getbasetemp() / "damaged.edgecap"
    path.write_bytes(raw)
    message, bundle = "", None
    try:
        bundle = read_bundle(path)
    except BundleError as error:
        message = str(error)
    assert "\n" not in message
    assert bundle is None or bundle.files == read_bundle(tiny_bundle).files
