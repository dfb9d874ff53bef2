"""The images of a dense data set alone, for what looks at no mask and no box."""

from __future__ import annotations

from ..sample import Sample
from .scenes import Scenes


class SceneImages:
    """Built-in scenes as data without labels: to calibrate on, and to compare outputs on.

    Parameters
    ----------
    split : str
        ``"train"``, ``"calibration"`` or ``"test"``.

    Examples
    --------
    >>> SceneImages("test")[0].image.size
    (128, 128)
    """

    def __init__(self, split: str) -> None:
        self._scenes = Scenes(split, "detection")
        self.name = self._scenes.name

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Sample:
        scene = self._scenes[index]
        return Sample(scene.image, None, scene.name)

    def label(self, index: int) -> None:
        """Return None."""
