"""TOML that users copy and edit, found by name or by path: recipes, devices, training recipes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import SepViTError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PACKAGE = Path(__file__).parent.parent


class Strict(BaseModel):
    """A model that rejects unknown keys: a misspelt option must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ModelT = TypeVar("ModelT", bound=Strict)


@dataclass(frozen=True)
class TomlFiles(Generic[ModelT]):
    """The TOML files of one kind: those in a folder that ships, and a user's own.

    Attributes
    ----------
    kind : str
        The name of the kind in messages, for example ``"recipe"``.
    model : type
        The model that checks the content.
    folder : Path
        The folder of the files that ship.
    """

    kind: str
    model: type[ModelT]
    folder: Path

    def shipped(self) -> dict[str, Path]:
        """Return the files that ship, by name."""
        return {path.stem: path for path in sorted(self.folder.glob("*.toml"))}

    def find(self, name_or_file: str | Path) -> Path:
        """Return the path of a shipped file's name, or of a user's file.

        Raises
        ------
        SepViTError
            If there is no such name or file; the names that exist are listed.
        """
        shipped = self.shipped()
        path = shipped.get(str(name_or_file), Path(name_or_file))
        if path.is_file():
            return path
        if path.suffix == ".toml" or len(path.parts) > 1:
            raise SepViTError(f"there is no {self.kind} {path}")
        raise unknown_name(self.kind, str(name_or_file), shipped)

    def load(self, name_or_file: str | Path, changes: Mapping[str, Any] | None = None) -> ModelT:
        """Read and check a file.

        Parameters
        ----------
        name_or_file : str or Path
            A shipped file's name, or a path.
        changes : mapping, optional
            Values that replace those of the file, by top-level key.

        Raises
        ------
        SepViTError
            If there is no such file, or it is not valid; the key, and the line where it stands,
            are named.
        """
        path = self.find(name_or_file)
        try:
            text = path.read_text(encoding="utf-8-sig")
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SepViTError(f"the {self.kind} {path} is not valid TOML: {error}") from None
        return self.check({**document, **(changes or {})}, f"the {self.kind} {path}", text)

    def check(self, document: Mapping[str, Any], where: str, text: str = "") -> ModelT:
        """Check a document that was read already; `text` is its source, for the line."""
        try:
            return self.model.model_validate(document)
        except ValidationError as error:
            keys = _keys(error, document)
            line = _line_of(text, keys)
            place = f"{where}, line {line}" if line else where
            raise SepViTError(f"{place}: {first_fault(error, document)}") from None


def shipped_folder(in_wheel: str, in_checkout: str) -> Path:
    """Return a folder of data: inside the package in a wheel, beside it in a checkout."""
    inside = _PACKAGE / in_wheel
    return inside if inside.is_dir() else _PACKAGE.parent / in_checkout


def to_toml(document: Mapping[str, Any]) -> str:
    """Write values, lists of them and tables as TOML; values first.

    Examples
    --------
    >>> print(to_toml({"target": "openvino", "quantization": {"keep_float": ["head"]}}))
    target = "openvino"
    <BLANKLINE>
    [quantization]
    keep_float = [
      "head"
    ]
    <BLANKLINE>
    """
    lines, tables = [], []
    for key, value in document.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{key}]\n{to_toml(value)}")
        else:
            # JSON's strings, numbers and lists are TOML's, but for this one character.
            text = json.dumps(value, ensure_ascii=False, indent=2).replace("\x7f", "\\u007f")
            lines.append(f"{key} = {text}\n")
    return "".join([*lines, *tables])


def first_fault(error: ValidationError, document: Mapping[str, Any] | None = None) -> str:
    """Put pydantic's first complaint into one line that names the key."""
    fault: Any = error.errors()[0]
    where = ".".join(_keys(error, document)) or "the document"
    if fault["type"] == "extra_forbidden":
        return f"{where} is not a known key"
    return f"{where}: {fault['msg']}"


def _keys(error: ValidationError, document: Mapping[str, Any] | None) -> list[str]:
    """Path to the first fault; the branch of a union, which the document lacks, is left out."""
    *parents, last = error.errors()[0]["loc"] or ("",)
    keys: list[str] = []
    value: Any = document
    for part in parents:
        if isinstance(value, Mapping) and part not in value:
            continue
        keys.append(str(part))
        value = value[part] if isinstance(value, (Mapping, list, tuple)) else None  # type: ignore[index]
    return [key for key in [*keys, str(last)] if key]


def _line_of(text: str, keys: list[str]) -> int | None:
    """Return the line of a key, or of the section that lacks it; None for the top level."""
    section: list[str] = []
    nearest = None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([\w.-]+)\]", line):
            section = header[1].split(".")
            if section and section == keys[: len(section)]:
                nearest = number
        pair = re.match(r"\s*([\w-]+)\s*=", line)
        if pair and pair[1] in keys and section == keys[: len(section)]:
            return number
    return nearest
