"""The configuration and the quantisation that a checkpoint of ours stores with its tensors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config.toml import first_fault
from ..errors import SepViTError
from ..model.dense import DenseConfig
from ..model.variants import ModelConfig, Preprocessing

KEY = "sepvit_edge"
# A scale, and its products, stay positive and finite in float32.
LEAST_SCALE, LARGEST_SCALE = 1e-30, 1e30
_Scale = Annotated[float, Field(ge=LEAST_SCALE, le=LARGEST_SCALE, allow_inf_nan=False)]


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StoredPreprocessing(_Stored):
    """Preprocessing; see `sepvit_edge.model.variants.Preprocessing`."""

    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class StoredConfig(_Stored):
    """Configuration of a model; see `sepvit_edge.model.variants.ModelConfig`."""

    variant: str
    num_classes: int
    image_size: int
    preprocessing: StoredPreprocessing
    labels: tuple[str, ...]

    def model_config_of(self) -> ModelConfig:
        """Return the configuration itself."""
        rule = self.preprocessing
        return ModelConfig(
            self.variant,
            self.num_classes,
            self.image_size,
            Preprocessing(rule.crop, rule.mean, rule.std),
            self.labels,
        )


class StoredDense(_Stored):
    """Configuration of a dense model; see `sepvit_edge.model.dense.DenseConfig`."""

    task: Literal["segmentation", "detection"]
    head: str
    variant: str
    num_classes: int
    input_size: tuple[int, int]
    window: Literal["paper", "fit"]
    channels: int
    preprocessing: StoredPreprocessing
    labels: tuple[str, ...]

    def dense_config_of(self) -> DenseConfig:
        """Return the configuration itself."""
        rule = self.preprocessing
        return DenseConfig(
            self.task,
            self.head,
            self.variant,
            self.num_classes,
            self.input_size,
            self.window,
            self.channels,
            Preprocessing(rule.crop, rule.mean, rule.std),
            self.labels,
        )


class StoredCalibration(_Stored):
    """Calibration images; see `sepvit_edge.model.quantized.Calibration`."""

    data: str
    images: int = Field(ge=0)
    sha256: str
    method: str


class StoredQuantization(_Stored):
    """What a quantisation-aware checkpoint says of its int8 layers.

    Attributes
    ----------
    scheme : str
        `sepvit_edge.quantization.scheme.LAYER_SCHEME`.
    scales : dict
        Layer -> scales of its input and its output; both None of the classifier.
    float_layers : dict
        Layer -> reason.
    calibration : StoredCalibration
        Images that the scales come from.
    """

    scheme: str
    scales: dict[str, tuple[_Scale | None, _Scale | None]]
    float_layers: dict[str, str]
    calibration: StoredCalibration


class Metadata(BaseModel):
    """All of it; a checkpoint of others has none.

    Attributes
    ----------
    config : StoredConfig, optional
        Configuration of a classifier.
    dense : StoredDense, optional
        Configuration of a dense model.
    quantization : StoredQuantization, optional
        Of a quantisation-aware checkpoint.
    trained_on : str, optional
        Name of the built-in data that the weights were trained on.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    # Absent is allowed, null is not: a default is not checked.
    config: StoredConfig = None  # type: ignore[assignment]
    dense: StoredDense = None  # type: ignore[assignment]
    quantization: StoredQuantization = None  # type: ignore[assignment]
    trained_on: str = None  # type: ignore[assignment]


def parse_metadata(text: str, name: str) -> Metadata:
    """Read the metadata of a file.

    Parameters
    ----------
    text : str
        JSON.
    name : str
        Name of the file, for the sentence.

    Raises
    ------
    SepViTError
        If it is not what a checkpoint of ours has; the first fault is named.
    """
    try:
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        raise SepViTError(
            f"{name} has damaged metadata: {first_fault(error)}; save the checkpoint again"
        ) from None
