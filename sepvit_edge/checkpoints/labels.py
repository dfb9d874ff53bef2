"""Class names from a file."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import SepViTError
from ..model.labels import check_labels

_FORMS = "write one label per line, or a JSON list"
# Lines of lists and tables in other formats: if all lines look alike in this way, none is a label.
_OTHER_FORMATS = {
    "starts with a number": r"\s*\d+\s*[,;:=\t].*",
    "starts with '- '": r"\s*- .*",
    "ends with a comma": r".*,\s*",
    "is quoted": r"""\s*(".*"|'.*')\s*""",
}
_STRUCTURED = (".yaml", ".yml", ".toml", ".xml", ".html", ".pbtxt", ".ini")


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read class names in the order of the classifier's outputs.

    Parameters
    ----------
    path : str or Path
        A text file (UTF-8) with one name per line; a JSON list of names, or an object of numbers
        and names, ``{"0": "cat"}`` or ImageNet's ``{"0": ["n02123045", "tabby"]}``; a CSV file of
        one column; or ``"imagenet"`` for the 1,000 names that torchvision carries.

    Raises
    ------
    SepViTError
        If the file cannot be read, is empty or of another form, or a label is twice in it or is not
        one line of text.
    """
    if str(path) == "imagenet":
        return _imagenet_labels()
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SepViTError(f"the labels {path} cannot be read: {reason}") from None
    labels = tuple(_labels(text.strip(" \t\r\n"), path))
    if not labels:
        raise SepViTError(f"{path} is empty; write one label per line")
    try:
        check_labels(labels)
    except SepViTError as error:
        raise SepViTError(f"{path}: {error}") from None
    first: dict[str, int] = {}
    for number, label in enumerate(labels):
        if first.setdefault(label, number) != number:
            raise SepViTError(
                f"{path} has the label {label!r} twice, for classes {first[label]} and {number}; "
                "give each class a name that no other has"
            )
    return labels


def _labels(text: str, path: Path) -> Sequence[str]:
    suffix = path.suffix.lower()
    if suffix in _STRUCTURED:
        raise SepViTError(f"labels are not read from {suffix} files such as {path}; {_FORMS}")
    if suffix == ".json" or (text[:1] in ("{", "[") and text[-1:] in ("}", "]")):
        return _json_labels(text, path)
    # Not splitlines, which also splits at U+2028 and others that may stand in a label.
    lines = [line.strip(" \t") for line in re.split(r"\r\n|\r|\n", text)]
    lines = [line for line in lines if line]
    if suffix in (".csv", ".tsv"):
        return _one_column(lines, path)
    for what, pattern in _OTHER_FORMATS.items():
        if len(lines) > 1 and all(re.fullmatch(pattern, line) for line in lines):
            raise SepViTError(f"every line of {path} {what}, so they are not labels; {_FORMS}")
    return lines


def _one_column(lines: Sequence[str], path: Path) -> list[str]:
    try:
        rows = list(csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ","))
    except csv.Error:
        rows = []
    if any(len(row) != 1 for row in rows) or any(";" in row[0] for row in rows):
        raise SepViTError(f"{path} is a table of several columns; {_FORMS}")
    return [row[0].strip() for row in rows]


def _json_labels(text: str, path: Path) -> list[str]:
    try:
        content: Any = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise SepViTError(f"the labels {path} are not valid JSON: {error}") from None
    if isinstance(content, _Pairs):
        content = _in_order(content)
    names = [_name(value) for value in content] if isinstance(content, list) else [None]
    if any(name is None for name in names):
        raise SepViTError(
            f"the labels {path} are JSON of another form; write a list of names, or "
            '{"0": "name"} with every number of a class'
        )
    return [name for name in names if name is not None]


class _Pairs(tuple[tuple[str, Any], ...]):
    """The keys and values of a JSON object; a key that stands twice is kept."""


def _in_order(pairs: _Pairs) -> list[Any] | None:
    """Return values in the order of their numbers, or names of numbers; None of other objects."""
    if all(type(value) is int for _, value in pairs):
        pairs = _Pairs((str(value), key) for key, value in pairs)
    by_number = dict(pairs)
    wanted = [str(i) for i in range(len(pairs))]
    return [by_number[n] for n in wanted] if by_number.keys() == set(wanted) else None


def _name(value: Any) -> str | None:
    """Return the name in an entry: a text, or the last of ImageNet's pairs of id and name."""
    pair = isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)
    name = value[1] if pair else value
    return name if isinstance(name, str) else None


def _imagenet_labels() -> tuple[str, ...]:
    try:
        from torchvision.models import ResNet50_Weights
    except ImportError:
        raise SepViTError(
            "the names of ImageNet's classes come from torchvision; run: "
            "pip install 'sepvit-edge[imagenet]'"
        ) from None
    return tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])
