"""List the licences of what an extra installs: `python scripts/licences.py > docs/licences.md`.

It reads the distributions that are installed here, and needs no network. What is not permissive,
or is not known, comes first. With `--check` nothing is printed, and the exit status is 1 if
something that is not in `KNOWN` is not permissive.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# SPDX identifiers, and what the older fields of packages say instead.
PERMISSIVE = re.compile(
    r"MIT(-0|-CMU)?|(\d-clause )?BSD([ -]\d-Clause)?|FreeBSD|Apache(-2\.0| 2(\.0)?)?|ISC( ISCL)?"
    r"|0BSD|Zlib|PSF-2\.0|Python Software Foundation|CNRI-Python|BSL-1\.0|CC0-1\.0|Unlicense"
    r"|Apache-2\.0 WITH LLVM-exception",
    re.I,
)
# Words around the name of a licence.
AROUND = re.compile(r"\b(The|License|Software|OSI Approved|version)\b|::|[,()]", re.I)
# Not permissive, or not stated in a field, and looked at.
KNOWN = {
    "asyncssh": "weak copyleft (EPL-2.0): used as it is, by `profile` over SSH",
    "certifi": "weak copyleft (MPL-2.0): a list of certificates, used as it is",
    "cuda-toolkit": "NVIDIA's terms: comes with torch's wheels for CUDA; not needed here",
    "faster-coco-eval": "Apache-2.0, in a file of the package",
    "hypothesis": "weak copyleft (MPL-2.0): for tests, needed by executorch, used as it is",
    "labgrid": "weak copyleft (LGPL-2.1-or-later): used as it is, by `profile` over labgrid",
    "nvidia-": "NVIDIA's terms: comes with torch's wheels for CUDA; not needed here",
    "pyudev": "weak copyleft (LGPL-2.1-or-later): needed by labgrid, used as it is",
    "torchao": "BSD-3-Clause, in a file of the package",
    "tqdm": "weak copyleft for some files (MPL-2.0): used as it is",
    "pyaml": "WTFPL, as permissive as can be: needed by coremltools",
}


def closure(name: str, extras: frozenset[str]) -> dict[str, Distribution]:
    """Return what a distribution with its extras needs and is installed, by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(name, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        key = canonicalize_name(name)
        if (key, extra) in seen:
            continue
        seen.add((key, extra))
        try:
            found[key] = distribution(name)
        except PackageNotFoundError:
            continue  # of another system, or not installed here
        for line in found[key].requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed.name, further) for further in ("", *needed.extras)]
    return found


def licence_of(package: Distribution) -> str:
    """Return the licence that a package states: the expression, the field, or the classifiers."""
    facts = package.metadata
    if expression := facts.get("License-Expression"):
        return expression
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in facts.get_all("Classifier") or ()
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    field = (facts.get("License") or "").strip()
    is_name = 0 < len(field) <= 40 and field != "UNKNOWN"
    title = field.partition("\n")[0]  # of a whole text
    return (field if is_name else ", ".join(classifiers) or title) or "not stated"


def is_permissive(licence: str) -> bool:
    """Tell whether a licence lets anything be done that keeps its notices.

    Examples
    --------
    >>> [is_permissive(x) for x in ("MIT", "MPL-2.0 AND MIT", "GPL-3.0 OR Apache-2.0", "")]
    [True, False, True, False]
    """
    plain = AROUND.sub(" ", licence.replace(" License ", " "))
    return all(
        any(PERMISSIVE.fullmatch(" ".join(one.split())) for one in part.split(" OR "))
        for part in plain.split(" AND ")
    )


def note_of(name: str) -> str | None:
    """Return what is known about a package."""
    return next((note for start, note in KNOWN.items() if name.startswith(start)), None)


def report(packages: dict[str, Distribution]) -> Iterator[str]:
    """Yield the lines of the page."""
    licences = {name: licence_of(package) for name, package in sorted(packages.items())}
    odd = {name: text for name, text in licences.items() if not is_permissive(text)}
    yield "# Licences\n"
    yield (
        "What `pip install 'sepvit-edge[all]'` installs on Linux on x86-64, by `python "
        "scripts/licences.py`, from what each package states about itself. The packages are not "
        "part of this one: they are installed beside it.\n"
    )
    yield "## Not permissive, or not stated\n"
    yield "| package | licence | |\n|-|-|-|"
    for name, text in odd.items():
        note = note_of(name) or "**to be looked at**"
        yield f"| {name} {packages[name].version} | {text} | {note} |"
    yield "\n## Permissive\n"
    yield "| package | licence |\n|-|-|"
    for name, text in licences.items():
        if name not in odd and name != "sepvit-edge":
            yield f"| {name} {packages[name].version} | {text} |"


def main() -> None:
    """Print the page, or check."""
    extras = frozenset(word for word in sys.argv[1:] if not word.startswith("-")) or {"all"}
    packages = closure("sepvit-edge", frozenset(extras))
    del packages["sepvit-edge"]
    if "--check" not in sys.argv:
        print(*report(packages), sep="\n")
        return
    unknown = [
        f"{name}: {licence_of(package)}"
        for name, package in sorted(packages.items())
        if not is_permissive(licence_of(package)) and note_of(name) is None
    ]
    sys.exit("\n".join(unknown) or 0)


if __name__ == "__main__":
    main()
