"""Golden vectors: real images and the logits that they must give on every device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from ..data.digits import Digits
from ..data.preprocess import preprocess_batch
from ..model.logits import reference_logits
from ..model.reference import SepViT
from ..package.manifest import GOLDEN
from ..package.session import PackageSession


def golden_images() -> list[Image.Image]:
    """Return the real images, of different sizes and modes, that every package carries.

    Two handwritten digits (8 x 8, grey), and pieces of scikit-learn's two sample photographs
    (china.jpg by Yann and flower.jpg by dany13, both CC BY 2.0).
    """
    from sklearn.datasets import load_sample_images

    digits = Digits("test")
    china, flower = (Image.fromarray(i) for i in load_sample_images().images)
    transparent = flower.crop((150, 40, 310, 130)).convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    return [
        digits[0].image,
        digits[1].image.resize((37, 53), Image.Resampling.BICUBIC).convert("RGB"),
        china.crop((100, 60, 420, 300)),
        flower.crop((200, 0, 350, 401)),
        china.crop((0, 180, 640, 240)).convert("L"),
        transparent,
    ]


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
    tensors["reference_logits"] = reference_logits(model, pixels)
    if session is not None:
        tensors["package_logits"] = session.run_pixels(pixels)[0]
    notice = "photographs: china.jpg by Yann, flower.jpg by dany13, CC BY 2.0, cropped"
    save_file(tensors, folder / GOLDEN, {"images": notice})
    (folder / GOLDEN).chmod(0o644)  # safetensors makes it private; apps and devices read it too
