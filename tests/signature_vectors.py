"""The vectors of signatures: what each language must accept, and refuse by its kind."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sepvit_edge.package import signature as signatures
from sepvit_edge.package.signature import SIGNATURE, SigningKey

_NOW = "2026-12-01T12:00:00Z"
_LATER = datetime(2026, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
Change = Callable[[dict[str, Any]], object]


def private_key(number: int) -> ec.EllipticCurvePrivateKey:
    """A key for tests alone: anybody can compute it."""
    return ec.derive_private_key(number, ec.SECP256R1())


def public_pem(number: int) -> str:
    public = private_key(number).public_key()
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(encoding, form).decode()


def signed(
    folder: Path,
    *,
    expires: datetime | None = None,
    statement: Change = lambda _: None,
    bundle: Change = lambda _: None,
) -> str:
    """Sign a folder by key 1 as a text, with changes before and after the signature."""
    key = SigningKey(private_key(1), expires)
    digests = signatures._digests(folder)
    stated = signatures._statement(digests, folder.name, expires)
    statement(stated)
    payload = json.dumps(stated, ensure_ascii=False).encode()
    document = signatures._bundle(key.key, payload)
    bundle(document)
    return json.dumps(document) + "\n"


def signature_cases(folder: Path) -> list[dict[str, Any]]:
    """Cases over a copy of the tiny package."""
    plain, dated = signed(folder), signed(folder, expires=_LATER)
    cases: list[dict[str, Any]] = []

    def case(
        name: str,
        kind: str | None,
        text: str | None = plain,
        *edits: dict[str, Any],
        mentions: tuple[str, ...] = (),
        now: str = _NOW,
        keys: tuple[int, ...] = (1,),
    ) -> None:
        first = [] if text is None else [{"op": "write", "file": SIGNATURE, "text": text}]
        cases.append(
            {
                "name": name,
                "keys": "".join(map(public_pem, keys)),
                "now": now,
                "edits": [*first, *edits],
                "kind": kind,
                "mentions": list(mentions),
            }
        )

    def write(file: str, text: str = "x") -> dict[str, Any]:
        return {"op": "write", "file": file, "text": text}

    def flip(file: str, byte: int = 9) -> dict[str, Any]:
        return {"op": "flip", "file": file, "byte": byte, "bit": 0}

    case("valid", None)
    case("valid, as a layout of keys and lines of its own", None, _laid_out(plain))
    case("valid, one of two trusted keys", None, plain, keys=(2, 1))
    case("valid until the end of the year", None, dated)
    case("valid in its last second", None, dated, now="2026-12-31T23:59:58Z")
    case("expired", "expired", dated, now="2027-06-01T00:00:00Z", mentions=("2026-12-31",))
    case("expired in this second", "expired", dated, now="2026-12-31T23:59:59Z")
    case("no signature", "unsigned", None, mentions=(SIGNATURE,))
    case("another key", "untrusted", plain, keys=(2,))
    case("other keys", "untrusted", plain, keys=(2, 3))
    for name, number in (("weights", 200), ("manifest", 12), ("labels", 0), ("golden vectors", 64)):
        file = {"weights": "model.onnx", "manifest": "manifest.json", "labels": "labels.txt"}
        named = file.get(name, "golden.safetensors")
        case(f"changed {name}", "changed", plain, flip(named, number), mentions=(named,))
    sealed = [
        {"op": "replace", "file": "manifest.json", "from": '"tiny"', "to": '"evil"'},
        {"op": "seal"},
    ]
    case("changed and sealed manifest", "changed", plain, *sealed, mentions=("manifest.json",))
    case("an added file", "added", plain, write("run.sh"), mentions=("run.sh",))
    case("an added hidden file", "added", plain, write(".env"), mentions=(".env",))
    case("a removed file", "missing", plain, {"op": "delete", "file": "labels.txt"},
         mentions=("labels.txt",))  # fmt: skip
    for name, change in _statements():
        case(f"signed, {name}", "damaged-signature", signed(folder, statement=change))
    for name, kind, change in _bundles():
        case(name, kind, signed(folder, bundle=change))
    texts = {"empty": "", "text": "signed!", "a list": "[]", "null": "null", "deep": "[" * 5000}
    for name, text in texts.items():
        case(f"a signature that is {name}", "damaged-signature", text)
    case("a signature cut short", "damaged-signature", plain[: len(plain) // 2])
    return cases


def _laid_out(text: str) -> str:
    return json.dumps(json.loads(text), indent=1, sort_keys=True)


def _statements() -> list[tuple[str, Change]]:
    """Changes of what is signed: each is signed well, and is not what readers understand."""

    def resources(statement: dict[str, Any]) -> list[dict[str, Any]]:
        return statement["predicate"]["resources"]

    return [
        ("another type", lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")),
        ("another predicate", lambda s: s.update(predicateType="https://slsa.dev/provenance/v1")),
        ("two subjects", lambda s: s.update(subject=s["subject"] * 2)),
        ("another digest of all", lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)),
        ("pieces of files", lambda s: s["predicate"]["serialization"].update(method="shards")),
        ("another hash", lambda s: s["predicate"]["serialization"].update(hash_type="blake2b")),
        ("another hash of a file", lambda s: resources(s)[0].update(algorithm="blake2b")),
        ("one file twice", lambda s: resources(s)[1].update(name=resources(s)[0]["name"])),
        ("a digest that is none", lambda s: resources(s)[0].update(digest="zz")),
        ("no files", lambda s: s["predicate"].pop("resources")),
        ("a time that is none", lambda s: s["predicate"].update(expires="soon")),
        ("a day that is none", lambda s: s["predicate"].update(expires="2027-02-30T00:00:00Z")),
        ("a time of another type", lambda s: s["predicate"].update(expires=1893456000)),
    ]


def _bundles() -> list[tuple[str, str, Change]]:
    """Changes after the signature was made."""

    def envelope(bundle: dict[str, Any]) -> dict[str, Any]:
        return bundle["dsseEnvelope"]

    def other_payload(bundle: dict[str, Any]) -> None:
        payload = base64.b64decode(envelope(bundle)["payload"]).replace(b"package", b"Package", 1)
        envelope(bundle)["payload"] = base64.b64encode(payload).decode()

    def other_signature(bundle: dict[str, Any]) -> None:
        (entry,) = envelope(bundle)["signatures"]
        raw = bytearray(base64.b64decode(entry["sig"]))
        raw[-1] ^= 1
        entry["sig"] = base64.b64encode(raw).decode()

    def signature_of(raw: bytes) -> Change:
        return lambda b: envelope(b)["signatures"][0].update(sig=base64.b64encode(raw).decode())

    return [
        ("a changed payload", "untrusted", other_payload),
        ("a changed signature", "untrusted", other_signature),
        ("an empty signature", "untrusted", signature_of(b"")),
        ("a signature that is no DER", "untrusted", signature_of(b"\x30\x7f" + b"\x02" * 40)),
        ("a signature of zeros", "untrusted", signature_of(bytes.fromhex("3006020100020100"))),
        (
            "another payload type",
            "damaged-signature",
            lambda b: envelope(b).update(payloadType="x"),
        ),
        ("another bundle", "damaged-signature", lambda b: b.update(mediaType="x")),
        ("no base64", "damaged-signature", lambda b: envelope(b).update(payload="*")),
        ("no signature in it", "damaged-signature", lambda b: envelope(b).update(signatures=[])),
        (
            "two signatures in it",
            "damaged-signature",
            lambda b: envelope(b).update(signatures=envelope(b)["signatures"] * 2),
        ),
    ]
