"""The one preprocessing rule: from an image file to the uint8 pixels that a package takes.

1. The orientation that EXIF states is applied; an image whose EXIF cannot be read stays as it is.
2. The image becomes 8-bit RGB: grey is repeated, a palette looked up, CMYK converted, transparency
   ignored (what the authors' and torchvision's loaders do); 16-bit grey keeps its high byte. Grey
   of 32 bits or in floating point is refused: its range is not known.
3. The shorter side is resized to floor(image_size / crop), the longer one in proportion, rounded
   down, with Pillow's BILINEAR: antialiased, 8-bit fixed point, first along the rows and then along
   the columns. Apps repeat it byte for byte.
4. The centre square of image_size is cut out, its corner rounded down.

Dense models see the whole image instead of the square: `fit_image` replaces steps 3 and 4.

Scaling to 0..1 and normalising are inside the exported graph, so no caller can forget them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import SepViTError
from ..model.dense import DenseConfig
from ..model.variants import ModelConfig, Preprocessing
from .fit import Fit

# A 100-megapixel image decodes to 300 MB; a larger one is a mistake or an attack.
MAX_PIXELS = 100_000_000
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
# Pillow's mode for 32 bits; it also reads 16 bits of these formats into it.
_INTEGER, _SIXTEEN_BIT_FORMATS = "I", frozenset({"PNG", "PPM"})
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow logs about odd files is not for users; what it cannot read is an exception.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def load_image(path: str | Path) -> Image.Image:
    """Read an image file whole.

    Returns
    -------
    PIL.Image.Image
        Decoded, in the file's own mode, orientation not applied yet.

    Raises
    ------
    SepViTError
        If the file is missing, unreadable, truncated, too large or not an image.
    """
    return _read(path, whole=True)


def check_header(path: str | Path) -> None:
    """Read the start of an image file, some 0.1 ms: what is not an image shows there.

    Raises
    ------
    SepViTError
        If the file is missing, unreadable, too large or not an image.
    """
    _read(path, whole=False).close()


def _read(path: str | Path, whole: bool) -> Image.Image:
    try:
        with _without_warnings():
            image = Image.open(path)
            _check_size(image.size, str(path))
            if whole:
                image.load()
    except SepViTError:
        raise
    except FileNotFoundError:
        raise SepViTError(f"there is no image {path}") from None
    except Image.DecompressionBombError:
        raise SepViTError(
            f"{path} has more than {MAX_PIXELS // 10**6} megapixels; scale it down first"
        ) from None
    except UnidentifiedImageError:
        raise SepViTError(f"{path} is not an image that Pillow can read") from None
    except IsADirectoryError:
        raise SepViTError(f"{path} is a folder, not an image") from None
    except PermissionError:
        raise SepViTError(f"{path} cannot be read: permission denied") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, ...
        raise SepViTError(f"{path} is a damaged image ({error})") from None
    return image


def _check_size(size: tuple[int, int], name: str) -> None:
    if min(size) < 2:
        raise SepViTError(f"{name} is {size[0]} x {size[1]} pixels; an image needs 2 x 2 at least")
    if size[0] * size[1] > MAX_PIXELS:
        raise SepViTError(
            f"{name} is {size[0]} x {size[1]} pixels, over {MAX_PIXELS // 10**6} megapixels; "
            "scale it down first"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation and convert to 8-bit RGB (steps 1 and 2 of the rule).

    Raises
    ------
    SepViTError
        For images of 32-bit integers or floating point, whose range is not known, and those that
        Pillow cannot convert; the file is named.
    """
    turn = _turn(image)
    sixteen = image.mode == _INTEGER and image.format in _SIXTEEN_BIT_FORMATS
    if image.mode in _SIXTEEN_BIT or sixteen:
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        rgb = Image.fromarray(values.astype(np.uint8)).convert("RGB")
    elif image.mode in (_INTEGER, "F"):
        kind = "floating-point" if image.mode == "F" else "32-bit integer"
        raise SepViTError(
            f"{_name(image)} is a {kind} image, which has no stated range; save it with 8 or 16 "
            "bits"
        )
    elif image.mode == "RGB":
        rgb = image
    else:
        try:
            with _without_warnings():
                rgb = image.convert("RGB")
        except Exception as error:
            raise SepViTError(f"{_name(image)} cannot be converted to RGB ({error})") from None
    if turn is not None:
        rgb = rgb.transpose(turn)
        rgb.info = {}  # it states an orientation that was applied
    return rgb


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return how to turn an image upright by its EXIF; None if it is, or EXIF cannot be read."""
    try:
        with _without_warnings():
            return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises struct.error, SyntaxError, AttributeError, ...
        return None


def _name(image: Image.Image) -> str:
    """Return the file that an image comes from, for messages."""
    return str(getattr(image, "filename", "")) or "the image"


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep Pillow's warnings about odd metadata from standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def preprocess(
    image: Image.Image | np.ndarray | str | Path, rule: Preprocessing, image_size: int
) -> np.ndarray:
    """Turn one image into the model's input pixels.

    Parameters
    ----------
    image : PIL.Image.Image, numpy.ndarray, str or Path
        An image, uint8 pixels (H, W, 3), or a file.
    rule : Preprocessing
        States the crop.
    image_size : int
        Side of the result.

    Returns
    -------
    numpy.ndarray
        uint8 (image_size, image_size, 3), RGB.

    Raises
    ------
    SepViTError
        If the image cannot be used; the message says why.

    Examples
    --------
    >>> photo = Image.new("RGB", (640, 480), "white")
    >>> preprocess(photo, Preprocessing(), 224).shape
    (224, 224, 3)
    """
    rgb, name = _upright(image)
    width, height = resized_size(rgb.size, rule.resize_side(image_size), name)
    rgb = resize(rgb, (width, height))
    left, top = (width - image_size) // 2, (height - image_size) // 2
    return np.array(rgb.crop((left, top, left + image_size, top + image_size)))


def _upright(image: Image.Image | np.ndarray | str | Path) -> tuple[Image.Image, str]:
    """Return an image of any kind as upright RGB (steps 1 and 2 of the rule), and its name."""
    if isinstance(image, (str, Path)):
        image = load_image(image)
    elif isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise SepViTError(
                f"pixels must be uint8 (H, W, 3), not {image.dtype} {tuple(image.shape)}"
            )
        _check_size((image.shape[1], image.shape[0]), "the image")
        image = Image.fromarray(image)
    rgb, name = to_rgb(image), _name(image)
    _check_size(rgb.size, name)
    return rgb, name


def resize(rgb: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to a width and height by the rule: BILINEAR, along the rows and then the columns."""
    # One axis a call: given both, Pillow 13 takes the columns first for some tall images and rounds
    # the pixels between the two differently from Pillow 12 (its pull request 9549).
    for step in ((size[0], rgb.height), size):
        if rgb.size != step:
            rgb = rgb.resize(step, Image.Resampling.BILINEAR)
    return rgb


def fit_image(
    image: Image.Image | np.ndarray | str | Path,
    mean: tuple[float, ...],
    size: tuple[int, int],
) -> tuple[np.ndarray, Fit]:
    """Turn one image into the input pixels of a dense model, all of it, in its own proportions.

    Steps 1 and 2 of the rule; then the image is resized by step 3's filter to the largest size
    inside the input, rounded down, and stands in its top left corner. The rest has the mean colour,
    ``floor(255 * mean + 0.5)``, which the graph's normalisation makes almost zero.

    Parameters
    ----------
    image : PIL.Image.Image, numpy.ndarray, str or Path
        An image, uint8 pixels (H, W, 3), or a file.
    mean : tuple of float
        Mean per channel, for pixels scaled to 0..1.
    size : tuple of int
        Height and width of the model's input.

    Returns
    -------
    pixels : numpy.ndarray
        uint8 (height, width, 3), RGB.
    fit : Fit
        The place of the image in them, and the way back.

    Raises
    ------
    SepViTError
        If the image cannot be used; the message says why.
    """
    rgb, _ = _upright(image)
    fit = Fit.of((rgb.height, rgb.width), size)
    pixels = np.empty((*size, 3), np.uint8)
    pixels[:] = [int(255 * value + 0.5) for value in mean]
    height, width = fit.content
    pixels[:height, :width] = np.asarray(resize(rgb, (width, height)))
    return pixels, fit


def preprocess_batch(
    images: Sequence[Image.Image | np.ndarray | str | Path], rule: Preprocessing, image_size: int
) -> np.ndarray:
    """Turn images into one array of input pixels.

    Parameters
    ----------
    images : sequence
        At least one image, each as `preprocess` takes it.
    rule : Preprocessing
        States the crop.
    image_size : int
        Side of the result.

    Returns
    -------
    numpy.ndarray
        uint8 (N, image_size, image_size, 3), RGB.
    """
    return np.stack([preprocess(image, rule, image_size) for image in images])


def fit_batch(
    images: Sequence[Image.Image | np.ndarray | str | Path],
    mean: tuple[float, float, float],
    size: tuple[int, int],
) -> np.ndarray:
    """Turn images into one array of a dense model's input pixels, as `fit_image` does.

    Returns
    -------
    numpy.ndarray
        uint8 (N, height, width, 3), RGB.
    """
    return np.stack([fit_image(image, mean, size)[0] for image in images])


def input_pixels(
    images: Sequence[Image.Image | np.ndarray | str | Path], config: ModelConfig | DenseConfig
) -> np.ndarray:
    """Turn images into one array of the input pixels of a model, by its task's rule.

    Returns
    -------
    numpy.ndarray
        uint8 (N, H, W, 3), RGB.
    """
    rule = config.preprocessing
    if isinstance(config, DenseConfig):
        return fit_batch(images, rule.mean, config.input_size)  # type: ignore[arg-type]
    return preprocess_batch(images, rule, config.image_size)


def resized_size(size: tuple[int, int], shorter: int, name: str = "an image") -> tuple[int, int]:
    """Compute width and height after the shorter side is resized to `shorter` (step 3 of the rule).

    Parameters
    ----------
    size : tuple of int
        Width and height.
    shorter : int
        Length of the shorter side afterwards.
    name : str
        Name of the image, for messages.

    Raises
    ------
    SepViTError
        If the image is so narrow that the result would exceed the size limit.

    Examples
    --------
    >>> resized_size((640, 480), 256)
    (341, 256)
    """
    width, height = size
    if width <= height:
        resized = (shorter, height * shorter // width)
    else:
        resized = (width * shorter // height, shorter)
    if resized[0] * resized[1] > MAX_PIXELS:
        raise SepViTError(
            f"{name} of {width} x {height} pixels is too narrow to classify; crop it first"
        )
    return resized
