"""What a file is, by its content; a file that is not a checkpoint is named and refused."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import SepViTError

_HEAD = 4096
_UNPACK = "unpack it, and name the file inside"
_EXPORTED = "give the weights that it was made from"
_DOWNLOAD = "download the file itself"


class _Format(NamedTuple):
    """A format that has no weights for this product.

    Attributes
    ----------
    start : int
        Place of the mark in the file.
    mark : bytes
        Bytes that every such file has there.
    name : str
        The format, with its article.
    advice : str
        The next step.
    """

    start: int
    mark: bytes
    name: str
    advice: str


_FORMATS = (
    _Format(0, b"version https://git-lfs", "a Git LFS pointer", "fetch the file by: git lfs pull"),
    _Format(0, b"\x1f\x8b", "a gzip file", _UNPACK),
    _Format(0, b"BZh", "a bzip2 file", _UNPACK),
    _Format(0, b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    _Format(0, b"\x28\xb5\x2f\xfd", "a zstd file", _UNPACK),
    _Format(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    _Format(0, b"Rar!", "a RAR archive", _UNPACK),
    _Format(257, b"ustar", "a tar archive", _UNPACK),
    _Format(4, b"TFL3", "a TFLite model", _EXPORTED),
    _Format(4, b"ET12", "an ExecuTorch program", _EXPORTED),
    _Format(0, b"GGUF", "a GGUF file", "SepViT is not stored in this format"),
    _Format(0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "save the weights by PyTorch"),
    _Format(0, b"\x93NUMPY", "a NumPy array", "save the weights by PyTorch"),
    _Format(0, b"\x89PNG", "a PNG image", "give a checkpoint"),
    _Format(0, b"\xff\xd8\xff", "a JPEG image", "give a checkpoint"),
    _Format(0, b"%PDF", "a PDF document", "give a checkpoint"),
    _Format(0, b"\x7fELF", "a program or library", "give a checkpoint"),
)
# Members of zip archives: a file is the first of these that ends with the text.
_MEMBERS = (
    ("/constants.pkl", "a TorchScript archive", "save its weights by torch.jit.load(...)"),
    ("serialized_exported_program.json", "a torch.export program", _EXPORTED),
    ("models/model.json", "a torch.export program", _EXPORTED),
    (".npy", "an archive of NumPy arrays", "save the weights by PyTorch"),
    ("model.weights.h5", "a Keras model", "save the weights by PyTorch"),
)

Kind = Literal["safetensors", "torch"]


def recognise(path: Path) -> Kind:
    """Tell the format of a checkpoint by its content; the suffix is not read.

    Parameters
    ----------
    path : Path
        A file that exists.

    Returns
    -------
    str
        ``"safetensors"``, or ``"torch"`` for what torch.save writes, in its present form or its
        older ones.

    Raises
    ------
    SepViTError
        If it is something else; the sentence says what, and what to do.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise _refusal(path, *_folder(path))
        if not stat.S_ISREG(mode):
            raise _refusal(path, "a device or a pipe", "copy the data into a file")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except PermissionError:
        raise SepViTError(f"{path} cannot be read: permission denied") from None
    if not head:
        raise _refusal(path, "an empty file", "copy or download it again")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    for known in _FORMATS:
        if head.startswith(known.mark, known.start):
            raise _refusal(path, known.name, known.advice)
    if head.startswith(b"PK\x03\x04"):
        _refuse_other_archives(path)
        return "torch"
    if _is_onnx(head):
        raise _refusal(path, "an ONNX model", _EXPORTED)
    if not head.startswith(b"\x80"):  # how every pickle of a checkpoint begins
        text = _text(head)
        if text is not None:
            raise _refusal(path, *_kind_of_text(text))
        raise SepViTError(
            f"{path.name} is not a readable checkpoint: its content is neither of safetensors nor "
            "of torch.save"
        )
    return "torch"


def _refusal(path: Path, name: str, advice: str) -> SepViTError:
    return SepViTError(f"{path} is {name}, not a checkpoint; {advice}")


def _folder(path: Path) -> tuple[str, str]:
    """Describe a folder, and name a file in it that may be meant."""
    if (path / "manifest.json").is_file():
        return "an exported package", _EXPORTED
    inside = sorted(p.name for p in path.iterdir() if p.suffix in (".safetensors", ".pth", ".pt"))
    meant = f", for example {path / inside[0]}" if inside else ""
    return "a folder", f"name a file in it{meant}"


def _refuse_other_archives(path: Path) -> None:
    """Refuse zip archives that torch.save has not written."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        raise SepViTError(
            f"{path.name} is not a readable checkpoint: it is cut or damaged; copy or download it "
            "again"
        ) from None
    for end, name, advice in _MEMBERS:
        if any(member.endswith(end) for member in members):
            raise _refusal(path, name, advice)
    if not any(member.endswith("/data.pkl") for member in members):
        raise _refusal(path, "a zip archive", _UNPACK)


def _is_onnx(head: bytes) -> bool:
    """Return whether a file starts as a model of ONNX does: its version, then its producer."""
    return head[:1] == b"\x08" and 0 < head[1] < 32 and head[2:3] == b"\x12"


def _text(head: bytes) -> str | None:
    """Decode the start of a text file; None for anything else."""
    for encoding in ("utf-16",) if head[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        try:
            text = head[: len(head) // 2 * 2].decode(encoding)
        except UnicodeDecodeError as error:
            if error.start < len(head) - 4:  # not a character that the end of the piece cuts
                return None
            text = head[: error.start].decode(encoding)
        if all(letter.isprintable() or letter.isspace() for letter in text):
            return text
    return None


def _kind_of_text(text: str) -> tuple[str, str]:
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html")):
        return "a web page", _DOWNLOAD
    if '"weight_map"' in text:
        return "the index of a checkpoint in several files", "merge them into one file"
    first = " ".join(text.split())[:30]
    return f"a text file (it begins with {first!r})", _DOWNLOAD
