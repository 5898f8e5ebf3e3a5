"""Signed bundles: ed25519 (RFC 8032) over ``manifest.json``, which holds the hash of every file.

Keys are PEM files, as ``openssl genpkey -algorithm ed25519`` writes them. The signature travels in
the bundle as one more entry, ``signature.json``.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from edgecap.runtime.errors import BundleError, MissingExtraError, OptionsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "signature.json"
# What is signed starts with it, so that a signature made for something else is none here.
_PURPOSE = b"edgecap bundle, schema 1\n"


class Signature(msgspec.Struct, frozen=True):
    """``signature.json``; both texts are base64 of raw bytes, 32 and 64 of them."""

    algorithm: Literal["ed25519"]
    public_key: str
    signature: str


def new_key(path: Path) -> tuple[Path, Path]:
    """Write a private key to ``path``, readable by its owner alone, and the public one beside it.

    Raises ``OptionsError`` where a file of that name exists: a key that is lost is lost.
    """
    _need()
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_name(path.name + ".pub")
    for place in (path, public):
        if place.exists():
            raise OptionsError(f"{place} exists; name a new file, or use the key that is there")
    key = Ed25519PrivateKey.generate()
    private_pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(private_pem)
        public.write_bytes(
            key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
        )
    except OSError as error:
        raise OptionsError(f"cannot write {path}: {error.strerror}") from None
    return path, public


def sign(manifest: bytes, key: Path) -> bytes:
    """``signature.json`` for a manifest's bytes, by the private key in the PEM file ``key``."""
    _need()
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem = _read(key)
    try:
        private = s.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise OptionsError(
            f"{key} holds no ed25519 private key; make one by `edgecap sign --new-key`"
        )
    raw = private.public_key().public_bytes(s.Encoding.Raw, s.PublicFormat.Raw)
    made = private.sign(_PURPOSE + manifest)
    return msgspec.json.encode(Signature("ed25519", _text(raw), _text(made)))


def verify(manifest: bytes, signature: bytes | None, key: Path | None) -> None:
    """Check a manifest's signature, against the public key in the PEM file ``key`` if one is given.

    Without ``key`` a signature that is there must fit its own public key, so that an edit shows;
    who signed is then not asked. Raises ``BundleError`` where there is none though one is demanded,
    where another key signed, and where the bundle was edited after it was signed.
    """
    if signature is None:
        if key is not None:
            raise BundleError(f"it is not signed, and {key} is demanded; sign it by `edgecap sign`")
        return
    try:
        _need()
    except MissingExtraError:
        if key is not None:
            raise
        return
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        stated = msgspec.json.decode(signature, type=Signature)
        public = Ed25519PublicKey.from_public_bytes(
            base64.b64decode(stated.public_key, validate=True)
        )
        made = base64.b64decode(stated.signature, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        raise BundleError(f"{SIGNATURE} is damaged; sign the bundle again") from None
    if key is not None:
        demanded = read_public_key(key)
        raw = demanded.public_bytes(s.Encoding.Raw, s.PublicFormat.Raw)
        if raw != public.public_bytes(s.Encoding.Raw, s.PublicFormat.Raw):
            raise BundleError(f"it is signed by another key than {key}; get it from its owner")
    try:
        public.verify(made, _PURPOSE + manifest)
    except InvalidSignature:
        raise BundleError(
            "it was edited after it was signed; get the signed one again, or sign it anew"
        ) from None


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The ed25519 public key in a PEM file. Raises ``OptionsError``."""
    _need()
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    pem = _read(path)
    try:
        key = s.load_pem_public_key(pem)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise OptionsError(f"{path} holds no ed25519 public key; give the .pub file of the signer")
    return key


def _need() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "signatures need the package cryptography; install edgecap[sign]"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionsError(f"cannot read the key {path}: {error.strerror}") from None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
