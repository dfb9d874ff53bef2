"""Signatures of packages: who made the files, by OpenSSF Model Signing with a key.

``model.sig`` is what ``model_signing sign key`` writes: a Sigstore bundle around a DSSE envelope of
an in-toto statement, which lists every file of the folder with its SHA-256, signed by ECDSA on
P-256. That tool verifies it too. We add one field that it ignores: the time at which it expires.
docs/signatures.md has the format; Kotlin, Swift and TypeScript verify it by the same vectors.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from ..errors import SepViTError
from ..files import file_sha256, replacing_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

SIGNATURE = "model.sig"
PASSWORD = "SEPVIT_SIGNING_PASSWORD"  # variable of the environment: password of an encrypted key
_LARGEST_SIGNATURE = 1 << 22  # bytes; a file of a package takes some 200
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_TIME = "%Y-%m-%dT%H:%M:%SZ"

Keys = str | Path | Sequence[str | Path]


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", strict=True)


class _Signed(_Camel):
    sig: str


class _Envelope(_Camel):
    payload: str
    payload_type: str
    signatures: list[_Signed] = Field(min_length=1, max_length=1)


class _Bundle(_Camel):
    media_type: str
    dsse_envelope: _Envelope


class _Resource(BaseModel, strict=True):
    name: str
    algorithm: str
    digest: str = Field(pattern="^[0-9a-f]{64}$")


class _Serialization(BaseModel, strict=True):
    method: str
    hash_type: str


class _Predicate(BaseModel, strict=True):
    serialization: _Serialization
    resources: list[_Resource]
    expires: str | None = None


class _Subject(BaseModel, strict=True):
    name: str
    digest: dict[str, str]


class _Statement(BaseModel, strict=True):
    type: str = Field(alias="_type")
    subject: list[_Subject] = Field(min_length=1, max_length=1)
    predicate_type: str = Field(alias="predicateType")
    predicate: _Predicate


@dataclass(frozen=True)
class SigningKey:
    """A private key, and the time until which its signatures are valid.

    Attributes
    ----------
    key : EllipticCurvePrivateKey
        On P-256.
    expires : datetime or None
        In UTC; None for a signature that does not expire.
    """

    key: EllipticCurvePrivateKey
    expires: datetime | None = None


def load_signing_key(path: str | Path, until: str = "") -> SigningKey:
    """Read a private key to sign with.

    Parameters
    ----------
    path : str or Path
        PEM file of a key on P-256; the password of an encrypted one is taken from the environment
        variable ``SEPVIT_SIGNING_PASSWORD``.
    until : str
        Day, ``YYYY-MM-DD``, at whose end in UTC the signatures expire. Default: never.

    Raises
    ------
    SepViTError
        If the file is not such a key, or the day is not one or is over.
    """
    serialization, ec = _cryptography()
    data = _read(Path(path), "signing key")
    password = os.environ.get(PASSWORD)
    try:
        key = serialization.load_pem_private_key(data, password.encode() if password else None)
    except (TypeError, ValueError) as error:
        encrypted = b"ENCRYPTED" in data
        advice = f"give its password in {PASSWORD}" if encrypted else "give the private key, in PEM"
        raise SepViTError(f"{path} is not a readable signing key; {advice}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise SepViTError(f"{path} is not a key on the curve P-256 (prime256v1); make one of those")
    return SigningKey(key, _end_of(until) if until else None)


def load_trusted_keys(keys: Keys) -> list[EllipticCurvePublicKey]:
    """Read the public keys that signatures are trusted of.

    Parameters
    ----------
    keys : str, Path or sequence
        PEM files of public keys on P-256, one or more a file.

    Raises
    ------
    SepViTError
        If a file holds no such key, or something else too.
    """
    serialization, ec = _cryptography()
    mark = b"-----BEGIN "
    found = []
    for path in [keys] if isinstance(keys, str | Path) else keys:
        data = _read(Path(path), "public key")
        blocks = [mark + block for block in data.split(mark)[1:]]
        for block in blocks:
            if not block.startswith(mark + b"PUBLIC KEY-----"):
                raise SepViTError(f"{path} holds more than public keys; give the public key alone")
            try:
                key = serialization.load_pem_public_key(block)
            except ValueError:
                key = None
            if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
                raise SepViTError(f"{path} holds a key that is not on the curve P-256")
            found.append(key)
        if not blocks:
            raise SepViTError(f"{path} holds no public key in PEM (BEGIN PUBLIC KEY)")
    if not found:
        raise SepViTError("no trusted key was given; name a file of public keys")
    return found


def trusted_pem(keys: Keys) -> str:
    """Return public keys as one text in PEM, as apps have it beside their packages.

    Parameters
    ----------
    keys : str, Path or sequence
        As `load_trusted_keys` takes them.
    """
    return "".join(_pem(key).decode() for key in load_trusted_keys(keys))


def sign_folder(folder: Path, signing: SigningKey, name: str | None = None) -> None:
    """Write the signature of all files of a package into it, in place of an older one.

    The same files and key give the same bytes, where OpenSSL is 3.2 or newer.

    Parameters
    ----------
    folder : Path
        The package.
    signing : SigningKey
        The key.
    name : str, optional
        Name of the package in the signature. Default: that of the folder.
    """
    statement = _statement(_digests(folder), name or folder.name, signing.expires)
    payload = json.dumps(statement, ensure_ascii=False).encode()
    with replacing_file(folder / SIGNATURE) as partial:
        partial.write_text(json.dumps(_bundle(signing.key, payload)) + "\n", encoding="utf-8")


def verify_folder(
    folder: Path, trusted: Sequence[EllipticCurvePublicKey], now: datetime | None = None
) -> None:
    """Check that a trusted key has signed exactly the files that are in a package.

    Parameters
    ----------
    folder : Path
        The package.
    trusted : sequence of EllipticCurvePublicKey
        Keys, of which one must have signed.
    now : datetime, optional
        With a time zone. Default: the clock's.

    Raises
    ------
    SepViTError
        If the signature is missing, damaged, of another key or expired, or a file was changed,
        added or removed.
    """
    path = folder / SIGNATURE
    if not path.is_file():
        raise SepViTError(f"{folder} is not signed: {SIGNATURE} is missing; use a signed package")
    if path.is_symlink() or path.stat().st_size > _LARGEST_SIGNATURE:
        raise _damaged(folder)
    predicate = _checked(folder, path.read_bytes(), trusted)
    if predicate.expires is not None:
        try:
            expires = datetime.strptime(predicate.expires, _TIME).replace(tzinfo=timezone.utc)
        except ValueError:
            raise _damaged(folder) from None
        if (now or datetime.now(timezone.utc)) >= expires:
            raise SepViTError(
                f"the signature of {folder} has expired on {predicate.expires}; use a newer package"
            )
    _compare(folder, {r.name: r.digest for r in predicate.resources}, _digests(folder))


def _checked(folder: Path, data: bytes, trusted: Sequence[EllipticCurvePublicKey]) -> _Predicate:
    """Check the signature, and after it what was signed: nothing else is read before."""
    try:
        bundle = _Bundle.model_validate_json(data)
        payload = base64.b64decode(bundle.dsse_envelope.payload, validate=True)
        signature = base64.b64decode(bundle.dsse_envelope.signatures[0].sig, validate=True)
    except (ValidationError, binascii.Error, ValueError):
        raise _damaged(folder) from None
    if bundle.media_type != _BUNDLE or bundle.dsse_envelope.payload_type != _PAYLOAD:
        raise _damaged(folder)
    if not any(_is_by(key, signature, payload) for key in trusted):
        raise SepViTError(
            f"{folder} is not signed by a trusted key, or its signature was changed; use a package "
            "of a source that you trust"
        )
    try:
        statement = _Statement.model_validate_json(payload)
    except ValidationError:
        raise _damaged(folder) from None
    predicate = statement.predicate
    resources = predicate.resources
    if (
        statement.type != _STATEMENT
        or statement.predicate_type != _PREDICATE
        or (predicate.serialization.method, predicate.serialization.hash_type)
        != ("files", "sha256")
        or any(resource.algorithm != "sha256" for resource in resources)
        or len({resource.name for resource in resources}) < len(resources)
        or statement.subject[0].digest.get("sha256") != _root([r.digest for r in resources])
    ):
        raise _damaged(folder)
    return predicate


def _compare(folder: Path, signed: Mapping[str, str], found: Mapping[str, str]) -> None:
    for name in sorted(signed.keys() | found.keys()):
        if name not in found:
            what = "is signed, but missing"
        elif name not in signed:
            what = "was added after it was signed"
        elif signed[name] != found[name]:
            what = "was changed after it was signed"
        else:
            continue
        raise SepViTError(f"{folder}: {name} {what}; use an untouched copy of the package")


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a folder but the signature; links are refused."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise SepViTError(f"{folder}: {name} is a link or a device, which cannot be signed")
        if path.is_file() and name != SIGNATURE:
            digests[name] = file_sha256(path)
    return digests


def _statement(digests: Mapping[str, str], name: str, expires: datetime | None) -> dict[str, Any]:
    names = sorted(digests)
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [SIGNATURE],
    }
    resources = [{"name": n, "algorithm": "sha256", "digest": digests[n]} for n in names]
    predicate: dict[str, Any] = {"serialization": serialization, "resources": resources}
    if expires is not None:
        predicate["expires"] = expires.strftime(_TIME)
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root([digests[n] for n in names])}}],
        "predicateType": _PREDICATE,
        "predicate": predicate,
    }


def _bundle(key: EllipticCurvePrivateKey, payload: bytes) -> dict[str, Any]:
    hint = _hint(key.public_key())
    return {
        "mediaType": _BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(_sign(key, payload)).decode(), "keyid": ""}],
        },
    }


def _root(digests: Sequence[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _signed_bytes(payload: bytes) -> bytes:
    """Return what is signed: DSSE's encoding of the payload and its type."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def _sign(key: EllipticCurvePrivateKey, payload: bytes) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        return key.sign(_signed_bytes(payload), ECDSA(SHA256(), deterministic_signing=True))
    except UnsupportedAlgorithm:
        return key.sign(_signed_bytes(payload), ECDSA(SHA256()))


def _is_by(key: EllipticCurvePublicKey, signature: bytes, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(signature, _signed_bytes(payload), ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _hint(key: EllipticCurvePublicKey) -> str:
    """Return the name of a key, as the bundle has it: the SHA-256 of its PEM."""
    return hashlib.sha256(_pem(key)).hexdigest()


def _pem(key: EllipticCurvePublicKey) -> bytes:
    serialization, _ = _cryptography()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = key.public_bytes(serialization.Encoding.PEM, form)
    return pem


def _end_of(day: str) -> datetime:
    try:
        end = datetime.strptime(f"{day}T23:59:59Z", _TIME).replace(tzinfo=timezone.utc)
    except ValueError:
        raise SepViTError(f"{day!r} is not a day; write for example 2027-06-30") from None
    if end <= datetime.now(timezone.utc):
        raise SepViTError(f"{day} is over: the signature would have expired already")
    return end


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ModuleNotFoundError:
        raise SepViTError(
            "signatures need cryptography; run: pip install 'sepvit-edge[sign]'"
        ) from None
    return serialization, ec


def _read(path: Path, what: str) -> bytes:
    try:
        if not path.is_file():
            raise SepViTError(f"there is no {what} {path}")
        if path.stat().st_size > 1 << 20:
            raise SepViTError(f"{path} is too large for a {what}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SepViTError(f"the {what} {path} cannot be read: {reason}") from None


def _damaged(folder: Path) -> SepViTError:
    return SepViTError(f"{folder / SIGNATURE} is damaged, or is not a signature of files by a key")
