"""Read and write ``.edgecap`` bundles: a model as one checked file, nothing in it executable.

Every name, size and hash is checked before a byte reaches an engine or a tokenizer.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgecap.runtime.errors import BundleError
from edgecap.runtime.files import replacing
from edgecap.runtime.manifest import (
    FileEntry,
    Manifest,
    decode_manifest,
    encode_manifest,
    referenced_files,
)
from edgecap.runtime.signature import SIGNATURE, sign, verify

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_BUNDLE_BYTES = 2 << 30
MAX_SIGNATURE_BYTES = 4096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LARGE = 64 << 20  # bytes: below, inflating costs a moment
_SAMPLE = 1 << 20  # bytes of a large file that tell whether it shrinks
_WORTH = 0.92
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file passed its checks.

    path : where it was read from
    manifest : what it says about itself
    files : name -> contents, ``manifest.json`` left out
    signed : whether it carries a signature
    """

    path: Path
    manifest: Manifest
    files: Mapping[str, bytes]
    signed: bool = False


def read_bundle(path: str | os.PathLike[str], *, signer: Path | None = None) -> Bundle:
    """Read a bundle and check all of it; ``BundleError`` says in one line what is wrong.

    signer : PEM file of the public key that must have signed it
    """
    path = Path(path)
    manifest, files, signature = _read(path, with_files=True, signer=signer)
    return Bundle(path, manifest, files, signature is not None)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Only the manifest; names and sizes of the other files are checked, their hashes are not."""
    return _read(Path(path), with_files=False)[0]


def write_bundle(
    path: str | os.PathLike[str],
    manifest: Manifest,
    files: Mapping[str, bytes],
    *,
    key: Path | None = None,
) -> Manifest:
    """Write a bundle in one move: a reader sees the old file or the whole new one.

    The same contents give the same bytes, whatever the day (with one version of zlib).
    ``manifest.files`` is filled in here; the completed manifest is returned.

    key : PEM file of the private key to sign it with
    """
    path = Path(path)
    for name in files:
        _check_name(name)
    table = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in sorted(files.items())
    }
    manifest = msgspec.structs.replace(manifest, files=table)
    contents = {MANIFEST: encode_manifest(manifest), **{n: files[n] for n in table}}
    if len(contents[MANIFEST]) > MAX_MANIFEST_BYTES:
        raise BundleError(f"the manifest is over {MAX_MANIFEST_BYTES} bytes; shorten it")
    if key is not None:
        contents[SIGNATURE] = sign(contents[MANIFEST], key)
    try:
        with replacing(path) as stream, zipfile.ZipFile(stream, "w") as archive:
            for name, data in contents.items():
                entry = zipfile.ZipInfo(name, _FIXED_DATE)
                entry.create_system = 3
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, data, _method(data), 9)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}") from None
    return manifest


def _method(data: bytes) -> int:
    """Large float weights hardly shrink, and to inflate them takes longer than to read them."""
    if len(data) > _LARGE:
        middle = data[len(data) // 2 :][:_SAMPLE]
        if len(zlib.compress(middle, 1)) > _WORTH * _SAMPLE:
            return zipfile.ZIP_STORED
    return zipfile.ZIP_DEFLATED


def _read(
    path: Path, *, with_files: bool, signer: Path | None = None
) -> tuple[Manifest, dict[str, bytes], bytes | None]:
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise BundleError(f"{path} is a folder; give the path of a .edgecap file")
        if not stat.S_ISREG(info.st_mode):
            raise BundleError(f"{path} is not a file; give the path of a .edgecap file")
        if info.st_size > MAX_BUNDLE_BYTES:
            raise BundleError(
                f"{path} has {info.st_size} bytes; at most {MAX_BUNDLE_BYTES} are read"
            )
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive)
            stated = archive.read(entries[MANIFEST])
            manifest = decode_manifest(stated)
            signature = archive.read(SIGNATURE) if entries.pop(SIGNATURE, None) else None
            _compare(entries, manifest)
            if not with_files:
                return manifest, {}, signature
            verify(stated, signature, signer)
            files = {name: archive.read(entries[name]) for name in manifest.files}
    except FileNotFoundError:
        raise BundleError(f"{path} does not exist; give the path of a .edgecap file") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from None
    except BundleError as error:
        text = str(error)
        raise BundleError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        UnicodeError,
    ):
        raise BundleError(
            f"{path} is damaged, cut short or no .edgecap bundle; download or export it again"
        ) from None
    for name, entry in manifest.files.items():
        if hashlib.sha256(files[name]).hexdigest() != entry.sha256:
            raise BundleError(
                f"{path}: {name} does not match its sha256; download or export the bundle again"
            )
    return manifest, files, signature


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's table of contents, checked before anything is decompressed."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.orig_filename  # zipfile changes `filename`: separators, text after a NUL
        _check_name(name)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise BundleError(f"entry {name!r} is a link or a special file; only files are read")
        if info.flag_bits & 0x1:
            raise BundleError(f"entry {name!r} is encrypted; bundles are not")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(f"entry {name!r} is compressed by a method other than deflate")
        if name in entries:
            raise BundleError(f"entry {name!r} is there twice")
        entries[name] = info
    if MANIFEST not in entries:
        raise BundleError(f"{MANIFEST} is missing; this zip file is no .edgecap bundle")
    if entries[MANIFEST].file_size > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{MANIFEST} declares {entries[MANIFEST].file_size} bytes; "
            f"at most {MAX_MANIFEST_BYTES} are read"
        )
    if SIGNATURE in entries and entries[SIGNATURE].file_size > MAX_SIGNATURE_BYTES:
        raise BundleError(f"{SIGNATURE} is too large for a signature; sign the bundle again")
    total = sum(info.file_size for info in entries.values())
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(f"its files declare {total} bytes; at most {MAX_BUNDLE_BYTES} are read")
    return entries


def _compare(entries: Mapping[str, zipfile.ZipInfo], manifest: Manifest) -> None:
    for role, file in referenced_files(manifest).items():
        if file not in manifest.files:
            raise BundleError(f"{role} names the file {file!r}, which the table of files lacks")
    for name, entry in manifest.files.items():
        _check_name(name)
        if name in (MANIFEST, SIGNATURE) or name not in entries:
            raise BundleError(f"{name} is in the manifest's table of files, not in the bundle")
        if entries[name].file_size != entry.bytes:
            raise BundleError(
                f"{name} has {entries[name].file_size} bytes, the manifest says {entry.bytes}"
            )
    extra = sorted(set(entries) - set(manifest.files) - {MANIFEST})
    if extra:
        raise BundleError(f"{extra[0]!r} is in the bundle, not in the manifest's table of files")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BundleError(
            f"entry {name!r} is no plain file name; letters, digits, '.', '_' and '-' are accepted"
        )
