"""Publish packages on the Hugging Face Hub: `python -m sepvit_edge.push PACKAGE hf://user/name`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from .cli.console import command, console, emit_json, steps


@command
def main(
    packages: Annotated[
        list[Path], typer.Argument(help="Folders of packages, each for a folder of its name there.")
    ],
    address: Annotated[str, typer.Argument(help="The repository: hf://USER/NAME.")],
    licence: Annotated[
        str,
        typer.Option("--license", help="Licence of the weights, as an SPDX identifier."),
    ] = "",
    results: Annotated[
        Path, typer.Option(help="Folder of measurements; those of these packages are told.")
    ] = Path("profiles/results"),
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the model card; publish nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Publish packages with a model card that is made from their manifests.

    All files are checked first, and written by one commit. The card says how each package was
    verified, its parity, accuracy and measured latency, and what its weights were trained on. Log
    in by `hf auth login`, or set HF_TOKEN.
    """
    from .cli.model_card import model_card
    from .errors import SepViTError
    from .hub import parse_address, upload
    from .package.folder import Package
    from .package.manifest import MANIFEST
    from .package.signature import SIGNATURE
    from .profiling.results import kept_results, load_results

    if licence and not re.fullmatch(r"[\w.+-]+", licence):
        raise SepViTError(f"{licence!r} is not an SPDX identifier; give one, as Apache-2.0")
    place = parse_address(address)
    found = [Package(path) for path in packages]
    names = [package.path.resolve().name for package in found]
    if len(set(names)) < len(names):
        raise SepViTError("two packages have the same folder name; rename one")
    measured = [each for one in kept_results(results) for each in load_results(one.path)]
    card = model_card(place.repository, found, measured, licence)
    files: dict[str, Path | bytes] = {"README.md": card.encode()}
    for name, package in zip(names, found, strict=True):
        for file in (MANIFEST, SIGNATURE, *(each.path for each in package.manifest.files)):
            if (package.path / file).exists():  # not every package is signed
                files[f"{name}/{file}"] = package.path / file
    url = ""
    if not dry_run:
        with steps() as step:
            step(f"publishing {len(files)} files")
            url = upload(address, files, f"Packages: {', '.join(names)}", private)
    if json:
        emit_json({"address": address, "url": url or None, "files": sorted(files), "card": card})
    elif dry_run:
        console.print(card, soft_wrap=True)
    else:
        console.print(url, soft_wrap=True)


if __name__ == "__main__":
    main()
