"""Signed bundles, against the keys that OpenSSL's own library makes."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from pathlib import Path

import msgspec
import pytest

import edgecap
from edgecap.models import resolve
from edgecap.runtime.bundle import read_bundle, write_bundle
from edgecap.runtime.errors import BundleError, OptionsError
from edgecap.runtime.signature import SIGNATURE, new_key, read_public_key, sign, verify

pytest.importorskip("cryptography", reason="signatures need the package cryptography")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return new_key(tmp_path_factory.mktemp("keys") / "maker.pem")


@pytest.fixture(scope="module")
def signed(keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = read_bundle(resolve("default"))
    path = tmp_path_factory.mktemp("signed") / "signed.edgecap"
    write_bundle(path, bundle.manifest, bundle.files, key=keys[0])
    return path


def test_signed_bundle_is_read(signed: Path, keys: tuple[Path, Path]) -> None:
    assert read_bundle(signed, signer=keys[1]).signed
    assert edgecap.load(signed, require_signature=keys[1]).name == "default"


def test_private_key_is_its_owners_alone(keys: tuple[Path, Path]) -> None:
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600


def test_signature_is_plain_ed25519(signed: Path, keys: tuple[Path, Path]) -> None:
    """The library's own check, on the bytes that are documented."""
    import base64

    with zipfile.ZipFile(signed) as archive:
        manifest = archive.read("manifest.json")
        made = json.loads(archive.read(SIGNATURE))
    read_public_key(keys[1]).verify(
        base64.b64decode(made["signature"]), b"edgecap bundle, schema 1\n" + manifest
    )


def test_key_of_openssl(tmp_path: Path) -> None:
    import subprocess

    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")
    key, public = tmp_path / "k.pem", tmp_path / "k.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    verify(b"text", sign(b"text", key), public)
    with pytest.raises(BundleError, match="edited"):
        verify(b"other", sign(b"text", key), public)


def test_unsigned_is_refused_where_a_signature_is_demanded(keys: tuple[Path, Path]) -> None:
    with pytest.raises(BundleError, match="not signed"):
        edgecap.load("default", require_signature=keys[1])


def test_environment_demands(keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECAP_REQUIRE_SIGNATURE", str(keys[1]))
    with pytest.raises(BundleError, match="not signed"):
        edgecap.load("default")


def test_another_signer_is_refused(signed: Path, tmp_path: Path) -> None:
    _, other = new_key(tmp_path / "other.pem")
    with pytest.raises(BundleError, match="another key"):
        read_bundle(signed, signer=other)


@pytest.mark.parametrize("demanded", [True, False])
def test_edited_bundle_is_refused(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, demanded: bool
) -> None:
    """Every hash is right again after the edit: the signature alone tells."""
    bundle = read_bundle(signed)
    edited = tmp_path / "edited.edgecap"
    manifest = msgspec.structs.replace(bundle.manifest, licence="anything")
    write_bundle(edited, manifest, bundle.files)
    with zipfile.ZipFile(signed) as old, zipfile.ZipFile(edited, "a") as new:
        new.writestr(SIGNATURE, old.read(SIGNATURE))
    with pytest.raises(BundleError, match="edited after it was signed"):
        read_bundle(edited, signer=keys[1] if demanded else None)


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b'{"algorithm":"rsa"}', b"x" * 5000])
def test_damaged_signature_is_refused(
    text: bytes, signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = read_bundle(signed)
    path = tmp_path / "damaged.edgecap"
    write_bundle(path, bundle.manifest, bundle.files)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(SIGNATURE, text)
    with pytest.raises(BundleError, match=r"signature\.json"):
        read_bundle(path, signer=keys[1])


def test_wrong_keys(keys: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="no ed25519 private key"):
        sign(b"text", keys[1])
    with pytest.raises(OptionsError, match="no ed25519 public key"):
        read_public_key(keys[0])
    with pytest.raises(OptionsError, match="cannot read the key"):
        read_public_key(tmp_path / "absent.pem")
    with pytest.raises(OptionsError, match="exists"):
        new_key(keys[0])


def test_manifest_may_not_claim_the_signature(tmp_path: Path) -> None:
    bundle = read_bundle(resolve("default"))
    path = tmp_path / "claims.edgecap"
    write_bundle(path, bundle.manifest, {**bundle.files, SIGNATURE: b"{}"})
    with pytest.raises(BundleError):
        read_bundle(path)
