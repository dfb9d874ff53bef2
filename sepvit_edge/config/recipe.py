"""Recipes: how to export for a target, as TOML that users copy and edit (folder export/)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from ..errors import SepViTError, unknown_name
from .toml import Strict, TomlFiles, first_fault, shipped_folder

Precision = Literal["fp32", "fp16", "int8"]
Classifier = Literal["int8", "float"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


OptionsT = TypeVar("OptionsT", bound=Strict)


class EdgeOptions(Strict):
    """The edge form that the runtime gets.

    Attributes
    ----------
    form : str
        Its name (`sepvit_edge.model.edge.FORMS`).
    """

    form: str = "rows"


class PlacementBudget(Strict):
    """Limits on an export's placement; it fails outside them.

    Attributes
    ----------
    max_ops_outside : int or None
        Operations that may run outside the target's accelerated unit.
    min_macs_share : float or None
        Share of the multiply-accumulates that must run inside it, 0..1.
    """

    max_ops_outside: int | None = Field(default=None, ge=0)
    min_macs_share: float | None = Field(default=None, ge=0, le=1)


class QuantizationOptions(Strict):
    """How an int8 package is quantised.

    Attributes
    ----------
    scheme : str
        ``"layers"`` (`sepvit_edge.quantization.scheme`); or ``"full"``, every operation in integers
        (`sepvit_edge.quantization.full_int8`), for units that compute nothing else.
    keep_float : tuple of str
        Patterns of layers to leave in float, as ``stages.0.*``.
    calibration_images : int
        Largest number of calibration images, for checkpoints that are not quantisation-aware and
        for ``"full"``.
    classifier : str
        How the classifier's int8 weights are stored: ``"int8"``; or ``"float"``, with the same
        values, for runtimes without an int8 product that has a float result.
    """

    scheme: Literal["layers", "full"] = "layers"
    keep_float: tuple[str, ...] = ()
    calibration_images: int = Field(default=128, ge=1)
    classifier: Classifier = "int8"


class Recipe(Strict):
    """How a package is exported.

    Attributes
    ----------
    target : str
        The runtime.
    precision : str
        ``"fp32"``, ``"fp16"`` or ``"int8"``.
    description : str
        One line for the list of recipes.
    edge : EdgeOptions
        The edge form.
    options : dict
        Options of the backend, which checks them (`options_as`).
    quantization : QuantizationOptions
        How int8 is done.
    placement : PlacementBudget
        Limits on where operations run.
    parity_images : int or None
        Number of images for parity, for slow emulations. Default: depends on the data set.
    cpu_features : tuple of str
        Features of a CPU, as `doctor` names them, any of which makes the recipe faster than the
        target's own one for the precision; `recommend` and `doctor` name it there only. Empty for
        every CPU.
    """

    target: str
    precision: Precision
    description: str = ""
    edge: EdgeOptions = EdgeOptions()
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    quantization: QuantizationOptions = QuantizationOptions()
    placement: PlacementBudget = PlacementBudget()
    parity_images: int | None = Field(default=None, ge=1)
    cpu_features: tuple[str, ...] = ()

    def options_as(self, kind: type[OptionsT]) -> OptionsT:
        """Check the options against a backend's own model of them.

        Raises
        ------
        SepViTError
            If a key is unknown or a value is not allowed; the key is named.
        """
        try:
            return kind.model_validate(self.options)
        except ValidationError as error:
            raise SepViTError(f"the recipe's options: {first_fault(error)}") from None


RECIPES = TomlFiles("recipe", Recipe, shipped_folder("recipes", "export"))


def recipes() -> dict[str, Path]:
    """Return the recipes that ship with the package, by name."""
    return RECIPES.shipped()


def targets() -> list[str]:
    """Return the targets that have a recipe."""
    return sorted({load_recipe(path).target for path in recipes().values()})


def load_recipe(name_or_file: str | Path) -> Recipe:
    """Read a recipe by name, or from a file.

    Raises
    ------
    SepViTError
        If it does not exist or is not valid; the key is named.
    """
    return RECIPES.load(name_or_file)


def parse_recipe(document: Mapping[str, Any]) -> Recipe:
    """Read the recipe in a package's manifest, to build the package again.

    Raises
    ------
    SepViTError
        If it is not a recipe of this version; the key is named.
    """
    where = "the package's recipe is read only by the version of sepvit-edge that made it"
    return RECIPES.check(document, where)


def recipes_of(target: str) -> dict[Precision, Recipe]:
    """Return the recipe that a target has for each precision, the highest precision first."""
    shipped = recipes()
    named = {precision: shipped.get(f"{target}-{precision}") for precision in PRECISIONS}
    return {precision: load_recipe(path) for precision, path in named.items() if path is not None}


def recipes_for(features: Collection[str]) -> dict[str, Recipe]:
    """Return the recipes to choose from on a CPU with some features, by name.

    These are the ones that the targets have for each precision, and those that the features make
    faster.
    """
    known = {name: load_recipe(path) for name, path in recipes().items()}
    return {
        name: recipe
        for name, recipe in known.items()
        if name == f"{recipe.target}-{recipe.precision}" or set(recipe.cpu_features) & set(features)
    }


def find_recipe(target: str, precision: str | None = None) -> Recipe:
    """Look up the recipe that a target has for a precision, fp32 unless stated.

    Raises
    ------
    SepViTError
        If the target is unknown or lacks the precision; what there is is named.
    """
    found = recipes_of(target)
    if not found:
        raise unknown_name("target", target, targets())
    precision = precision or "fp32"
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if precision not in found:
        raise SepViTError(f"{target} has no {precision} yet; it has {', '.join(found)}")
    return found[precision]
