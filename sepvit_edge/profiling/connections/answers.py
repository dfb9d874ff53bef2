"""Lines that a runner on a device writes: bounded, and skipped where they are something else."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import CheckFailed, SepViTError, reason_of
from ...package.manifest import Manifest
from ..document import Profile, SustainedPoint, read_profile
from .interface import ConnectionLost, Process, Step

_SILENCE_S = 400  # longer than any phase of the runner may take
# The longest document has some 60,000 runs of 20 characters.
_LONGEST_LINE, _LONGEST_ANSWER = 16 << 20, 256 << 20
_LONGEST_PROGRESS = 200


@dataclass
class Answer:
    """What a runner wrote until its end.

    Attributes
    ----------
    document, pairs : dict or None
        The last document, and the pairs of two packages.
    rows : list of dict
        Outputs of images.
    points : list of dict
        Points of the sustained run.
    lost : str
        How the connection broke; empty if it did not.
    """

    document: dict[str, Any] | None = None
    pairs: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    lost: str = ""


async def listen(process: Process, step: Step) -> Answer:
    """Read a runner's lines to the end of its output.

    Raises
    ------
    SepViTError
        If it writes more than any measurement can.
    """
    answer = Answer()
    try:
        async for event in _events(process):
            if isinstance(text := event.get("progress"), str):
                step(text[:_LONGEST_PROGRESS])
            elif "point" in event and _is_point(event["point"]):
                answer.points.append(event["point"])
            elif isinstance(event.get("document"), dict):
                answer.document = event["document"]
            elif isinstance(event.get("pairs"), dict):
                answer.pairs = event["pairs"]
            elif isinstance(event.get("rows"), dict):
                answer.rows.append(event["rows"])
    except ConnectionLost as error:
        answer.lost = str(error)
    return answer


def _is_point(point: object) -> bool:
    try:
        SustainedPoint.model_validate(point, extra="ignore")
    except ValidationError:
        return False
    return True


async def _events(process: Process) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects that the runner writes, one per line; other output is skipped."""
    pending: list[bytes] = []
    length = total = 0
    while True:
        try:
            data = await asyncio.wait_for(process.read(), _SILENCE_S)
        except asyncio.TimeoutError:
            raise ConnectionLost(f"the device sent nothing for {_SILENCE_S} s") from None
        if not data:
            return
        total += len(data)
        *ended, rest = data.split(b"\n")
        for piece in ended:
            event = _parsed(b"".join([*pending, piece]))
            pending, length = [], 0
            if event is not None:
                yield event
        pending.append(rest)
        length += len(rest)
        if length > _LONGEST_LINE or total > _LONGEST_ANSWER:
            raise SepViTError(
                f"the device sent {total / 1e6:.0f} MB, more than any measurement has; is another "
                "program answering there?"
            )


class _Rows(BaseModel):
    """Outputs of some images, as a runner writes them."""

    model_config = ConfigDict(strict=True)

    start: int = Field(ge=0)
    shape: list[Annotated[int, Field(gt=0)]] = Field(min_length=2, max_length=2)
    float32: str

    def values(self) -> np.ndarray:
        """Return float32 (N, numbers); raises ValueError where the data is of another size."""
        data = base64.b64decode(self.float32, validate=True)
        return np.frombuffer(data, "<f4").reshape(self.shape).astype(np.float32)


def read_rows(rows: list[dict[str, Any]], images: int, numbers: int) -> np.ndarray:
    """Put the outputs of images together.

    Parameters
    ----------
    rows : list of dict
        What the device wrote.
    images, numbers : int
        How many images were asked for, and how many numbers each must have.

    Returns
    -------
    numpy.ndarray
        float32 (images, numbers).

    Raises
    ------
    SepViTError
        If it is something else, or not of every image.
    """
    found = np.empty((0, numbers), np.float32)
    try:
        for each in map(_Rows.model_validate, rows):
            if each.start != len(found):
                break
            found = np.concatenate([found, each.values()])
    except ValueError as error:
        raise SepViTError(f"the device sent no outputs: {reason_of(error)}") from None
    if len(found) != images:
        raise SepViTError(f"the device sent the outputs of {len(found)} of {images} images")
    return _finite(found)


def read_floats(data: bytes, images: int, numbers: int) -> np.ndarray:
    """Read the outputs of images that an app wrote: float32, little endian, image by image.

    Parameters and errors are those of `read_rows`.
    """
    if len(data) != 4 * images * numbers:
        raise SepViTError(
            f"the device sent {len(data)} bytes, not the {4 * images * numbers} of {images} images "
            f"with {numbers} float32 each"
        )
    return _finite(np.frombuffer(data, "<f4").reshape(images, numbers).astype(np.float32))


def _finite(found: np.ndarray) -> np.ndarray:
    if not np.isfinite(found).all():
        raise CheckFailed("the device computes values that are not finite; profile it first")
    return found


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the object that a line is; None for anything else."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def read_answer(document: object, manifest: Manifest, where: str) -> Profile:
    """Check a document that a device wrote about a package.

    Raises
    ------
    SepViTError
        If it is not valid, or about another package.
    """
    profile = read_profile(document, where)
    told, model = profile.package, manifest.model
    facts = {
        "digest": (told.digest, manifest.digest),
        "variant": (told.variant, model.variant),
        "target": (told.target, manifest.target),
        "precision": (told.precision, manifest.precision),
        "image size": (told.image_size, model.image_size),
        "batch": (told.batch, manifest.input.shape[0]),
        "MACs": (told.macs, model.macs),
    }
    for what, (theirs, ours) in facts.items():
        if theirs != ours:
            raise SepViTError(
                f"the document from {where} is about another package: its {what} is "
                f"{str(theirs)[:12]}, not {str(ours)[:12]}"
            )
    return profile
