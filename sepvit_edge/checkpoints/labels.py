"""Class names from a file."""

from __future__ import annotations

from pathlib import Path

from ..errors import SepViTError


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read class names, one per line, in the order of the classifier's outputs.

    Parameters
    ----------
    path : str or Path
        A text file, or ``"imagenet"`` for the 1,000 names that torchvision carries.

    Raises
    ------
    SepViTError
        If the file cannot be read or is empty.
    """
    if str(path) == "imagenet":
        return _imagenet_labels()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SepViTError(f"the labels {path} cannot be read: {reason}") from None
    labels = tuple(line.strip() for line in lines if line.strip())
    if not labels:
        raise SepViTError(f"{path} is empty; write one label per line")
    return labels


def _imagenet_labels() -> tuple[str, ...]:
    try:
        from torchvision.models import ResNet50_Weights
    except ImportError:
        raise SepViTError(
            "the names of ImageNet's classes come from torchvision; run: "
            "pip install 'sepvit-edge[imagenet]'"
        ) from None
    return tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])
