"""Documents that an app exported: iOS, the web page, or an Android phone without adb."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import SepViTError
from ...package.folder import Package
from ..document import Profile, read_profile


def read_app_file(path: Path, packages: list[Package]) -> Profile:
    """Read an exported document, and check that it is about one of these packages.

    Raises
    ------
    SepViTError
        If it is missing or not valid, or another package was measured.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SepViTError(f"there is no document {path}; export it in the app") from None
    except (ValueError, RecursionError, OSError) as error:
        raise SepViTError(f"{path} is not a JSON document: {error}") from None
    profile = read_profile(document, str(path))
    if packages and profile.package.digest not in {p.manifest.digest for p in packages}:
        raise SepViTError(
            f"{path} measured another package: digest {profile.package.digest[:12]}, not "
            f"{', '.join(p.manifest.digest[:12] for p in packages)}"
        )
    return profile
