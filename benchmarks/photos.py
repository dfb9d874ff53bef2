"""Unpack the photographs that the built-in photo weights are trained and measured on.

    python benchmarks/photos.py ARCHIVES DATA

ARCHIVES holds trashnet.tar, sign-language-digits.tar and caltech-101.tar. DATA gets waste/ and
signs/, each with train/ and test/ (a fifth, chosen by content), and photos/ for pre-training: all
of Caltech-101 and the two train/ folders, as hard links.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from pathlib import Path

from sepvit_edge.data.split import is_held_out

SETS = {"trashnet": "waste", "sign-language-digits": "signs"}
HELD_OUT = 0.2


def main(archives: Path, data: Path) -> None:
    """Unpack, split and link."""
    photos = data / "photos"
    photos.mkdir(parents=True)
    for archive, name in SETS.items():
        unpack(archives / f"{archive}.tar", data)
        root = (data / archive).rename(data / name)
        for path in sorted(p for p in root.glob("*/*") if p.is_file()):
            split = "test" if is_held_out(path, HELD_OUT) else "train"
            target = root / split / path.parent.name
            target.mkdir(parents=True, exist_ok=True)
            path.rename(target / path.name)
        for folder in [p for p in root.iterdir() if p.name not in ("train", "test")]:
            folder.rmdir()
        shutil.copytree(root / "train", photos / name, copy_function=os.link)
        for split in ("train", "test"):
            print(f"{name}/{split}: {len(list((root / split).glob('*/*')))} images")
    unpack(archives / "caltech-101.tar", data)
    (data / "caltech-101").rename(photos / "caltech-101")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive that has one folder."""
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
