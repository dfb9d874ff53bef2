"""The whole network of an edge form, for one batch and image size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn

from ..reference import SepViT
from .folding import fold
from .form import Form
from .forms import FORMS
from .taps import NoTaps, Taps
from .weights import Sides, StageWeights


class Stage(nn.Module):
    """Patch embedding, then blocks with the position encoding after the first."""

    def __init__(
        self, form: Form, weights: StageWeights, previous: Sides | None, batch: int
    ) -> None:
        super().__init__()
        self.patch_embedding = (
            form.stem(form, weights.patch_embedding)
            if previous is None
            else form.embedding(form, weights.patch_embedding, previous)
        )
        self.blocks = nn.ModuleList(form.block(form, block, batch) for block in weights.blocks)
        self.cpe = form.encoding(weights.cpe, weights.sides)

    def forward(self, x: Tensor, taps: Taps, name: str) -> Tensor:
        """The previous stage's stream, or the input's map -> the stream."""
        x = self.patch_embedding(x)
        taps.keep(f"{name}.patch_embedding", x)
        for index, block in enumerate(self.blocks):
            x = block(x, taps, f"{name}.blocks.{index}")
            if index == 0:
                x = self.cpe(x)
                taps.keep(f"{name}.cpe", x)
        return x


class EdgeModel(nn.Module):
    """The edge form of a reference model, for one batch and image size.

    Parameters
    ----------
    model : SepViT
        The reference; its weights are copied.
    batch : int
        Images a call, fixed in the graph.
    form : Form
        One of `FORMS`, or one made from them by `dataclasses.replace`.
    taps : bool
        Also return the output of every part (`tap_names`), for parity by block.

    Examples
    --------
    >>> from sepvit_edge import create_model
    >>> edge = EdgeModel(create_model("lite", num_classes=10, image_size=32), batch=2)
    >>> edge.example_input().shape
    torch.Size([2, 32, 32, 3])
    >>> edge(edge.example_input()).shape
    torch.Size([2, 10])
    """

    graph = ""  # of a model with several: the first one

    def __init__(
        self, model: SepViT, batch: int = 1, form: Form = FORMS["rows"], taps: bool = False
    ) -> None:
        super().__init__()
        weights = fold(model)
        sides = [stage.sides for stage in weights.stages]
        # Principle 2: the sides and the batch are integers from here on.
        self.config, self.batch, self.form, self.taps = model.config, batch, form, taps
        self.input = form.pixels(weights.mean)
        self.stages = nn.ModuleList(
            Stage(form, stage, previous, batch)
            for stage, previous in zip(weights.stages, [None, *sides], strict=False)
        )
        self.head = form.head(form, weights.head, sides[-1], batch)
        self.eval()

    def blocks(self) -> Iterator[tuple[str, Any]]:
        """Yield every block with its name, as ``stages.2.blocks.4``, in the network's order."""
        for i, stage in enumerate(self.stages):
            for j, block in enumerate(cast(Stage, stage).blocks):
                yield f"stages.{i}.blocks.{j}", block

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in front of the taps."""
        return ("logits",)

    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the outputs in front of the taps."""
        return [(self.batch, self.config.num_classes)]

    @property
    def tap_names(self) -> list[str]:
        """Names of the outputs after the model's own, in order."""
        if not self.taps:
            return []
        names = []
        for name, block in self.blocks():
            stage, first = name.split(".blocks.")[0], name.endswith(".blocks.0")
            names += [f"{stage}.patch_embedding"] if first else []
            names += [f"{name}.dsa"]
            names += [f"{name}.psa"] if block.psa is not None else []
            names += [f"{name}.proj", f"{name}.mlp"]
            names += [f"{stage}.cpe"] if first else []
        return names

    def example_input(self) -> Tensor:
        """Return zero pixels of the shape and dtype that `forward` takes."""
        size = self.config.image_size
        return self.form.pixels.example(self.batch, size, size)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Classify RGB pixels 0-255.

        Parameters
        ----------
        pixels : Tensor
            uint8 (B, size, size, 3) or float32 (B, 3, size, size), by `form.pixels`.

        Returns
        -------
        Tensor or tuple of Tensor
            Logits (B, num_classes), followed by the taps where they were asked for.
        """
        taps = Taps() if self.taps else NoTaps()
        x = self.input(pixels)
        for i, stage in enumerate(self.stages):
            x = stage(x, taps, f"stages.{i}")
        logits = self.head(x)
        return (logits, *(taps.outputs[name] for name in self.tap_names)) if self.taps else logits
