"""Checkpoints by name: those that ship with the package, and files."""

from __future__ import annotations

from pathlib import Path

from ..errors import SepViTError
from ..hub import SCHEME, download_checkpoint
from ..model.dense.config import default_head
from ..model.variants import find_variant

_FOLDER = Path(__file__).parent.parent / "builtin"
_CHOICE = "::"  # between a file's name and the weights to take from it


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


def default_dense_checkpoint(task: str, head: str = "") -> Path:
    """Return the built-in checkpoint of a head: its name ends with the head's.

    Parameters
    ----------
    task : str
        ``"segmentation"`` or ``"detection"``.
    head : str
        Key of the head. Default: the task's.

    Raises
    ------
    SepViTError
        If no weights ship for that head.
    """
    head = head or default_head(task)
    for name, path in builtin_checkpoints().items():
        if name.endswith(f"-{head}"):
            return path
    raise SepViTError(
        f"no weights ship for {head}; give --weights FILE, or --weights random to measure size "
        "and speed"
    )


def locate(path: str | Path) -> tuple[Path, str]:
    """Split what the user names into a file and, behind ``::``, the weights to take from it.

    Parameters
    ----------
    path : str or Path
        A file, the name of a built-in checkpoint, or an address on the Hugging Face Hub
        (``hf://user/name``), which is downloaded; ``::KEY`` may follow a file or an address.

    Raises
    ------
    SepViTError
        If there is no such file, or it cannot be downloaded.

    Examples
    --------
    >>> file, key = locate("lite-digits")
    >>> file.name, key
    ('lite-digits.safetensors', '')
    """
    named = str(path)
    if named.startswith(SCHEME):
        address, _, key = named.partition(_CHOICE)
        return download_checkpoint(address), key
    try:
        if named in builtin_checkpoints():
            return builtin_checkpoints()[named], ""
        if Path(named).exists():
            return Path(named), ""
        file, separator, key = named.rpartition(_CHOICE)
        if separator and Path(file).exists():
            return Path(file), key
    except (OSError, ValueError) as error:  # too long a name, or one with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise SepViTError(f"the checkpoint {named!r} cannot be read: {reason}") from None
    known = ", ".join(builtin_checkpoints())
    raise SepViTError(f"there is no checkpoint {named} (built in: {known or 'none'})")
