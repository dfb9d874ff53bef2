"""The checkpoints that ship with the package."""

from __future__ import annotations

from pathlib import Path

from ..errors import SepViTError
from ..model.variants import find_variant

_FOLDER = Path(__file__).parent.parent / "builtin"


def builtin_checkpoints() -> dict[str, Path]:
    """Return the files of the built-in checkpoints, by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}


def default_checkpoint(variant: str | None = None) -> Path:
    """Return the built-in checkpoint of a variant, quantisation-aware where there is one.

    Parameters
    ----------
    variant : str, optional
        Key of the variant. Default: ``"t"``.

    Raises
    ------
    SepViTError
        If no weights ship for that variant.
    """
    shipped = builtin_checkpoints()
    key = "t" if variant is None else find_variant(variant).key
    names = [name for name in shipped if name.split("-")[0] == key]
    if not names:
        raise SepViTError(
            f"no weights ship for {find_variant(key).name}; give --weights FILE, or "
            f"--weights random to measure size and speed (built in: {', '.join(shipped) or 'none'})"
        )
    return shipped[next((name for name in names if name.endswith("-qat")), names[0])]
