"""Which class of a model a folder of images belongs to."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SepViTError

# The rules, as results state them.
BY_LABEL = "labels"
BY_FORM = "labels, whatever their case, blanks and Unicode form"
BY_NUMBER = "class numbers"
BY_FILE = "a file of classes"
BY_ORDER = "sorted order"

_ADVICE = "rename the folders, or pair them with labels by --classes FILE"


@dataclass(frozen=True)
class Matching:
    """The class of each folder, and how it was found.

    Attributes
    ----------
    classes : tuple of int
        Index of the class of each folder.
    rule : str
        One of `BY_LABEL`, `BY_FORM`, `BY_NUMBER`, `BY_FILE`, `BY_ORDER`.
    note : str
        Sentence for the user where the names alone do not decide; otherwise empty.
    """

    classes: tuple[int, ...]
    rule: str
    note: str = ""


def match_folders(
    folders: Sequence[str],
    labels: Sequence[str],
    pairs: Mapping[str, str] | None = None,
    where: str = "the data",
) -> Matching:
    """Find the class of each folder.

    A folder belongs to the label that it is named after: exactly, or but for Unicode form, case,
    blanks, underscores and hyphens. Only where no folder is named after a label, and there is one
    folder per class, are they taken by number (0, 1, ...), or else in sorted order.

    Parameters
    ----------
    folders : sequence of str
        Names of the folders.
    labels : sequence of str
        The model's class names. ``"0" ... "n-1"`` stand for a model without names.
    pairs : mapping, optional
        Label of each folder, as `read_pairs` returns them. Decides before all other rules.
    where : str
        Name of the data, for messages.

    Raises
    ------
    SepViTError
        If a folder has no class, or two folders have the same one; both sides are listed.

    Examples
    --------
    >>> match_folders(["Dog", "cat"], ("cat", "dog")).classes
    (1, 0)
    >>> match_folders(["n02084071", "n02121808"], ("dog", "cat")).rule
    'sorted order'
    """
    if pairs is not None:
        return _by_pairs(folders, labels, pairs, where)
    numbered = without_names(labels)
    find = _finder(labels)
    found = [_number(name, len(labels)) if numbered else find(name) for name in folders]
    if None not in found:
        classes = tuple(index for index in found if index is not None)
        _refuse_doubles(folders, classes, labels, where)
        if not numbered:
            exact = all(labels[i] == name for i, name in zip(classes, folders, strict=True))
            return Matching(classes, BY_LABEL if exact else BY_FORM)
        if len(classes) == len(labels) <= 10:  # the number is the place in sorted order too
            return Matching(classes, BY_LABEL)
        note = (
            f"the folders of {where} were taken as the numbers of the model's classes, "
            "which have no names; if that is wrong, give --classes FILE"
        )
        return Matching(classes, BY_NUMBER, note)
    some = named_after(folders, labels) or any(index is not None for index in found)
    if some or len(folders) != len(labels):
        raise _unmatched(folders, labels, found, where)
    return _by_place(folders, labels, where)


def without_names(labels: Sequence[str]) -> bool:
    """Tell whether labels are only the numbers of the classes."""
    return all(label == str(i) for i, label in enumerate(labels))


def _by_place(folders: Sequence[str], labels: Sequence[str], where: str) -> Matching:
    """Match by number if the folders are numbered like the classes, otherwise in sorted order."""
    numbers = [_number(name, len(labels)) for name in folders]
    if sorted(n for n in numbers if n is not None) == list(range(len(labels))):
        rule, classes = BY_NUMBER, tuple(n for n in numbers if n is not None)
    else:
        places = {name: place for place, name in enumerate(sorted(folders))}
        rule, classes = BY_ORDER, tuple(places[name] for name in folders)
        _refuse_contradiction(folders, labels, classes, where)
    folder_of = dict(zip(classes, folders, strict=True))
    examples = [f"{shown(folder_of[i])} = {shown(labels[i])}" for i in range(len(labels))]
    how = "as the numbers of the classes" if rule == BY_NUMBER else "in sorted order"
    note = (
        f"no folder of {where} is named after a label, so they were taken {how}: "
        f"{shortened(examples)}; if that is wrong, give --classes FILE"
    )
    return Matching(classes, rule, note)


def _refuse_contradiction(
    folders: Sequence[str], labels: Sequence[str], classes: Sequence[int], where: str
) -> None:
    """Reject a sorted order that gives a folder one label while its name contains another."""
    keys = [_folded(label) for label in labels]
    for name, index in zip(folders, classes, strict=True):
        key = _folded(name)
        alike = [
            i
            for i, other in enumerate(keys)
            if min(len(key), len(other)) >= 3 and (other in key or key in other)
        ]
        if alike and index not in alike:
            raise SepViTError(
                f"no folder of {where} is named after a label, and in sorted order folder "
                f"{name!r} would be {labels[index]!r} and not {labels[alike[0]]!r}; {_ADVICE}"
            )


def _by_pairs(
    folders: Sequence[str], labels: Sequence[str], pairs: Mapping[str, str], where: str
) -> Matching:
    """Match by a file of classes; a folder that it leaves out must be named after its label."""
    names = list(pairs)
    entry, find = _finder(names), _finder(labels)
    classes = []
    for folder in folders:
        found = entry(folder)
        label = folder if found is None else pairs[names[found]]
        index = find(label)
        if index is None and found is None:
            raise SepViTError(
                f"the file of classes has no line for folder {folder!r} of {where}; "
                f"it has: {shortened(map(shown, names))}"
            )
        if index is None:
            raise SepViTError(
                f"the file of classes gives folder {folder!r} the label {label!r}, which the "
                f"model does not have; its labels: {shortened(map(shown, labels))}"
            )
        classes.append(index)
    return Matching(tuple(classes), BY_FILE)


def _finder(names: Sequence[str]) -> Callable[[str], int | None]:
    """Return a function that finds the one name that a text stands for, by the strictest form."""
    tables: list[tuple[Callable[[str], str], dict[str, list[int]]]] = []
    for form in (str, _composed, _folded):
        table: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(names):
            table[form(name)].append(i)
        tables.append((form, dict(table)))

    def find(text: str) -> int | None:
        for form, table in tables:
            if form(text) and (found := table.get(form(text))):
                return found[0] if len(found) == 1 else None
        return None

    return find


def named_after(names: Iterable[str], labels: Iterable[str]) -> list[str]:
    """Return the names that are some label, whatever their form."""
    known = set(map(_folded, labels))
    return [name for name in names if _folded(name) in known]


def _composed(name: str) -> str:
    """Return a name in one Unicode form, without blanks at its ends."""
    return unicodedata.normalize("NFC", name).strip()


def _folded(name: str) -> str:
    """Return a name without case, and with one blank for blanks, underscores and hyphens."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    folded = unicodedata.normalize("NFKC", folded)
    return re.sub(r"[\s_-]+", " ", folded).strip()


def _number(name: str, count: int) -> int | None:
    """Return the class number that a folder's name is, 0 .. count - 1."""
    if not (name.isascii() and name.isdigit() and len(name) <= 9):
        return None
    return int(name) if int(name) < count else None


def _refuse_doubles(
    folders: Sequence[str], classes: Sequence[int], labels: Sequence[str], where: str
) -> None:
    first: dict[int, str] = {}
    for name, index in zip(folders, classes, strict=True):
        if index in first:
            raise SepViTError(
                f"folders {first[index]!r} and {name!r} of {where} are both named after the label "
                f"{labels[index]!r}; {_ADVICE}"
            )
        first[index] = name


def _unmatched(
    folders: Sequence[str], labels: Sequence[str], found: Sequence[int | None], where: str
) -> SepViTError:
    """Return the error that lists the folders and labels without a partner."""
    stray = [name for name, index in zip(folders, found, strict=True) if index is None]
    named = next((n for n, index in zip(folders, found, strict=True) if index is not None), None)
    while_other = "" if named is None else f", while folder {named!r} is"
    free = [label for i, label in enumerate(labels) if i not in found]
    return SepViTError(
        f"folder {stray[0]!r} of {where} is not named after a label of the model{while_other} "
        f"({len(folders)} folders, {len(labels)} classes); folders without a label: "
        f"{shortened(map(shown, stray))}; labels without a folder: {shortened(map(shown, free))}; "
        f"{_ADVICE}"
    )


def shown(name: str) -> str:
    """Return a name as a sentence shows it: as it is, or quoted if part of it is invisible."""
    return name if name.isprintable() and name.strip() == name != "" else repr(name)


def shortened(names: Iterable[str], limit: int = 8) -> str:
    """Join names by commas; of a long list only the first.

    Examples
    --------
    >>> shortened("abcdef", limit=3)
    'a, b, c and 3 more'
    """
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return (", ".join(listed[:limit]) or "none") + more


def read_pairs(path: str | Path) -> dict[str, str]:
    r"""Read a file that gives each folder its label (option --classes).

    Two forms: a JSON object, ``{"n02084071": "dog"}``; or a line per folder with the folder, a
    tab, comma or semicolon, and the label (TSV or CSV).

    Raises
    ------
    SepViTError
        If the file cannot be read, has another form, or names a folder twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SepViTError(f"the file of classes {path} cannot be read: {reason}") from None
    is_json = Path(path).suffix.lower() == ".json" or text.lstrip().startswith("{")
    listed = _json_pairs(text) if is_json else _table_pairs(text)
    if not listed:
        raise SepViTError(
            f"the file of classes {path} is neither a JSON object of folders and labels, nor lines "
            "of a folder, a tab, comma or semicolon, and its label"
        )
    pairs: dict[str, str] = {}
    for folder, label in listed:
        if pairs.setdefault(folder, label) != label:
            raise SepViTError(
                f"the file of classes {path} gives folder {folder!r} two labels, "
                f"{pairs[folder]!r} and {label!r}"
            )
    return pairs


def _json_pairs(text: str) -> list[tuple[str, str]]:
    """Return the pairs of a JSON object of texts; none if it is something else."""
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except ValueError:
        return []
    plain = isinstance(pairs, list) and all(
        isinstance(pair, tuple) and isinstance(pair[1], str) for pair in pairs
    )
    return pairs if plain else []


def _table_pairs(text: str) -> list[tuple[str, str]]:
    """Return the pairs of a table of two columns; none if no separator gives two, or several do."""
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    tables = []
    for separator in "\t" if "\t" in text else ",;":
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
        if rows and all(len(row) == 2 for row in rows):
            tables.append([(row[0].strip(), row[1].strip()) for row in rows])
    return tables[0] if len(tables) == 1 else []
