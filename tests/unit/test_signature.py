"""Signatures of packages: the shared vectors, the keys, and the commands that ask for them."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from helpers import MINI, TESTS, Runner, jittered, random_pixels
from PIL import Image

pytest.importorskip("cryptography")
pytest.importorskip("onnx")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from make_vectors import apply_edits
from signature_vectors import private_key, public_pem

from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package, compare_packages
from sepvit_edge.package.signature import (
    PASSWORD,
    SIGNATURE,
    load_signing_key,
    load_trusted_keys,
    sign_folder,
    verify_folder,
)
from sepvit_edge.pipeline.export import export_package

TINY = TESTS / "vectors" / "package"
KINDS = {
    "unsigned": "is not signed: model.sig is missing",
    "damaged-signature": "model.sig is damaged",
    "untrusted": "is not signed by a trusted key",
    "expired": "has expired on",
    "missing": "is signed, but missing",
    "added": "was added after it was signed",
    "changed": "was changed after it was signed",
}
CASES = json.loads((TESTS / "vectors" / "signatures.json").read_text(encoding="utf-8"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "package"))


def pem(key: Any, password: str = "") -> bytes:
    protection: Any = serialization.NoEncryption()
    if password:
        protection = serialization.BestAvailableEncryption(password.encode())
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, protection)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with pairs of keys: a.pem and a.pub, b.pem and b.pub."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name, number in (("a", 1), ("b", 2)):
        (folder / f"{name}.pem").write_bytes(pem(private_key(number)))
        (folder / f"{name}.pub").write_text(public_pem(number))
    return folder


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in CASES])
def test_a_signature_is_accepted_or_refused_by_its_kind(case: dict[str, Any], tiny: Path) -> None:
    apply_edits(tiny, case["edits"])
    (tiny.parent / "keys").write_text(case["keys"])
    trusted = load_trusted_keys(tiny.parent / "keys")
    now = datetime.fromisoformat(case["now"].replace("Z", "+00:00"))
    if case["kind"] is None:
        return verify_folder(tiny, trusted, now)
    with pytest.raises(SepViTError) as refused:
        verify_folder(tiny, trusted, now)
    sentence = str(refused.value)
    assert KINDS[case["kind"]] in sentence and "\n" not in sentence
    assert all(word in sentence for word in case["mentions"])
    return None


def test_every_kind_has_a_case() -> None:
    assert {case["kind"] for case in CASES} == {None, *KINDS}


def test_no_flipped_byte_of_a_signature_is_accepted(tiny: Path, keys: Path) -> None:
    sign_folder(tiny, load_signing_key(keys / "a.pem"))
    signed, trusted = (tiny / SIGNATURE).read_bytes(), load_trusted_keys(keys / "a.pub")
    verified = json.loads(signed)
    del verified["verificationMaterial"]  # a hint, which decides nothing
    del verified["dsseEnvelope"]["signatures"][0]["keyid"]
    for place in range(0, len(signed), 7):
        changed = bytearray(signed)
        changed[place] ^= 1
        (tiny / SIGNATURE).write_bytes(changed)
        try:
            verify_folder(tiny, trusted)
        except SepViTError:
            continue
        read = json.loads(changed)
        read.pop("verificationMaterial", None)
        read["dsseEnvelope"]["signatures"][0] = {
            "sig": read["dsseEnvelope"]["signatures"][0]["sig"]
        }
        assert {k: read[k] for k in verified} == verified, place


def test_links_are_not_signed(tiny: Path, keys: Path) -> None:
    sign_folder(tiny, load_signing_key(keys / "a.pem"))
    labels = tiny / "labels.txt"
    labels.rename(tiny.parent / "outside")
    labels.symlink_to(tiny.parent / "outside")
    with pytest.raises(SepViTError, match=r"labels\.txt is a link or a device"):
        verify_folder(tiny, load_trusted_keys(keys / "a.pub"))
    with pytest.raises(SepViTError, match=r"labels\.txt is a link or a device"):
        sign_folder(tiny, load_signing_key(keys / "a.pem"))


def test_wrong_keys_are_one_sentence(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    (keys / "384.pem").write_bytes(pem(other))
    (keys / "ed.pem").write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    (keys / "locked.pem").write_bytes(pem(private_key(1), "secret"))
    (keys / "text.pem").write_text("a key")
    for name, sentence in (
        ("none.pem", "there is no signing key"),
        ("a.pub", "is not a readable signing key; give the private key"),
        ("text.pem", "is not a readable signing key"),
        ("384.pem", "is not a key on the curve P-256"),
        ("ed.pem", "is not a key on the curve P-256"),
        ("locked.pem", f"give its password in {PASSWORD}"),
        ("a\0b", "there is no signing key"),
    ):
        with pytest.raises(SepViTError, match=sentence):
            load_signing_key(keys / name)
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(SepViTError, match="give its password"):
        load_signing_key(keys / "locked.pem")
    monkeypatch.setenv(PASSWORD, "secret")
    assert load_signing_key(keys / "locked.pem").expires is None
    monkeypatch.delenv(PASSWORD)
    for until, sentence in (("soon", "is not a day"), ("2020-01-01", "is over")):
        with pytest.raises(SepViTError, match=sentence):
            load_signing_key(keys / "a.pem", until)

    (keys / "both.pub").write_text(public_pem(1) + public_pem(2))
    assert len(load_trusted_keys([keys / "both.pub", keys / "a.pub"])) == 3
    (keys / "mixed.pub").write_bytes(public_pem(1).encode() + pem(private_key(1)))
    (keys / "cut.pub").write_text(public_pem(1)[:60])
    for name, sentence in (
        ("none", "there is no public key"),
        ("text.pem", "holds no public key in PEM"),
        ("a.pem", "holds more than public keys"),
        ("mixed.pub", "holds more than public keys"),
        ("cut.pub", "not on the curve P-256"),
    ):
        with pytest.raises(SepViTError, match=sentence):
            load_trusted_keys(keys / name)
    with pytest.raises(SepViTError, match="no trusted key was given"):
        load_trusted_keys([])


def test_an_export_is_signed(tmp_path: Path, keys: Path, run_command: Runner) -> None:
    pytest.importorskip("openvino")
    folder, key = tmp_path / "signed", load_signing_key(keys / "a.pem", "2999-12-31")
    export_package(jittered(MINI, image_size=32), output=folder, images=2, sign=key)
    package = Package(folder, keys / "a.pub")
    assert SIGNATURE not in [file.path for file in package.manifest.files]
    first = (folder / SIGNATURE).read_bytes()
    sign_folder(folder, key)
    assert (folder / SIGNATURE).read_bytes() == first
    for wrong in (["--sign-until", "2999-12-31"], ["--sign", keys / "a.pub"]):
        refused = run_command("export", "--output", tmp_path / "x", *wrong)
        assert refused.status == 2 and not (tmp_path / "x").exists()


def test_commands_ask_for_signatures(
    tmp_path: Path, keys: Path, run_command: Runner, package_path: Path
) -> None:
    signed = Path(shutil.copytree(package_path, tmp_path / "signed"))
    sign_folder(signed, load_signing_key(keys / "a.pem"))
    compare_packages(package_path, signed)
    image = tmp_path / "image.png"
    Image.fromarray(random_pixels(1, 32)[0]).save(image)
    asked = ["--require-signature", keys / "b.pub", "--require-signature", keys / "a.pub"]
    assert run_command("predict", signed, image, *asked).status == 0
    commands: list[tuple[object, ...]] = [
        ("predict", signed, image),
        ("evaluate", signed, "--images", 2),
        ("profile", signed),
        ("profile", "--ab", signed, signed),
        ("bundle", signed, "--app", "web", "--project", tmp_path),
    ]
    for name, *arguments in commands:
        other = run_command(name, *arguments, "--require-signature", keys / "b.pub")
        assert other.status == 2 and KINDS["untrusted"] in other.err
        missing = [package_path if value == signed else value for value in arguments]
        unsigned = run_command(name, *missing, "--require-signature", keys / "a.pub")
        assert unsigned.status == 2 and KINDS["unsigned"] in unsigned.err


def test_a_bundle_keeps_the_signature_and_nothing_else(tiny: Path, keys: Path) -> None:
    from sepvit_edge.pipeline.apps import bundle_packages

    sign_folder(tiny, load_signing_key(keys / "a.pem"))
    (tiny / "run.sh").write_text("an added file, which no manifest lists")
    project = tiny.parent / "web"
    project.mkdir()
    folder = bundle_packages([tiny], "web", project)
    assert Package(folder / "package", keys / "a.pub").labels
    assert SIGNATURE in json.loads((folder / "index.json").read_text())["packages"][0]["files"]


def test_an_app_asks_for_the_signatures_that_its_bundle_asked_for(
    run_command: Runner, tiny: Path, keys: Path
) -> None:
    sign_folder(tiny, load_signing_key(keys / "a.pem"))
    project = tiny.parent / "web"
    project.mkdir()
    bundle = ("bundle", tiny, "--app", "web", "--project", project)
    trusted = ("--require-signature", keys / "a.pub", "--require-signature", keys / "b.pub")
    assert run_command(*bundle, *trusted).status == 0
    trust = project / "public/packages/trust.pem"
    text = trust.read_text()
    assert text == (keys / "a.pub").read_text() + (keys / "b.pub").read_text()
    assert Package(trust.parent / "package", trust).labels

    forgotten = run_command(*bundle)
    assert forgotten.status == 2 and "trust.pem asks for signatures" in forgotten.err
    assert trust.read_text() == text
    assert run_command(*bundle, *trusted[:2]).status == 0
    assert trust.read_text() == (keys / "a.pub").read_text()
    trust.unlink()
    assert run_command(*bundle).status == 0 and not trust.exists()


def test_model_signing_reads_ours_and_we_read_its(tiny: Path, keys: Path) -> None:
    signing = pytest.importorskip("model_signing.signing")
    verifying = pytest.importorskip("model_signing.verifying")
    sign_folder(tiny, load_signing_key(keys / "a.pem", "2999-12-31"))
    theirs = verifying.Config().use_elliptic_key_verifier(public_key=keys / "a.pub")
    theirs.verify(tiny, tiny / SIGNATURE)
    (tiny / SIGNATURE).unlink()
    ours = signing.Config().use_elliptic_key_signer(private_key=keys / "a.pem")
    ours.sign(tiny, tiny / SIGNATURE)
    verify_folder(tiny, load_trusted_keys(keys / "a.pub"))
