"""Golden vectors: real images and the logits that they must give on every device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from ..data.preprocess import load_image, preprocess_batch
from ..model.logits import reference_logits, torch_threads
from ..model.reference import SepViT
from ..package.manifest import GOLDEN
from ..package.session import PackageSession

_IMAGES = Path(__file__).parents[1] / "data" / "builtin" / "golden"


NOTICE = "photographs by danielbuechele and vultilion (Flickr), CC BY 2.0, cropped"


def golden_images() -> list[Image.Image]:
    """Return the real images, of different sizes and modes, that every package carries.

    Two handwritten digits, and pieces of two photographs; `data/builtin/README.md` names their
    sources and licences.
    """
    return [load_image(_IMAGES / f"{number}.png") for number in range(6)]


def write_golden(model: SepViT, session: PackageSession | None, folder: Path) -> None:
    """Write the golden vectors of a package.

    Parameters
    ----------
    model : SepViT
        The reference.
    session : PackageSession or None
        The package; None if nothing on this system runs it, then only the reference's logits are
        written.
    folder : Path
        The package's folder.
    """
    config = model.config
    images = golden_images()
    tensors = {f"image.{i}": np.asarray(image) for i, image in enumerate(images)}
    pixels = preprocess_batch(images, config.preprocessing, config.image_size)
    tensors["pixels"] = pixels
    with torch_threads(1):  # the bytes do not depend on the number of cores
        tensors["reference_logits"] = reference_logits(model, pixels)
    if session is not None:
        tensors["package_logits"] = session.run_pixels(pixels)[0]
    save_file(tensors, folder / GOLDEN, {"images": NOTICE})
    (folder / GOLDEN).chmod(0o644)  # safetensors makes it private; apps and devices read it too
