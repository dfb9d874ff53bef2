"""The whole network of a dense model's edge form, for one image of one size."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from ....errors import SepViTError
from ...dense import DenseConfig, DenseModel, mask_rcnn, retinanet
from ...reference import STRIDES
from .. import rows
from ..form import Form
from ..forms import FORMS
from ..network import EdgeModel, Stage
from ..taps import NoTaps, Taps
from ..weights import NormWeights, Sides, StageWeights
from . import heads, padded
from .folding import fold_dense
from .neck import FPN
from .weights import RetinaNetWeights, RPNWeights, SemanticFPNWeights, UperNetWeights

_HEADS: dict[type, type[nn.Module]] = {
    SemanticFPNWeights: heads.SemanticFPN,
    UperNetWeights: heads.UperNet,
    RetinaNetWeights: heads.RetinaNet,
    RPNWeights: heads.RPN,
}
# Names of the outputs by what is found.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "segmentation": ("logits",),
    "detection": ("class_logits", "box_deltas"),
    "instance-segmentation": (
        "proposal_logits",
        "proposal_deltas",
        *(f"pyramid_{stride}" for stride in STRIDES),
    ),
}


def dense_form(form: Form) -> Form:
    """Return a form of rows with the block for padded maps.

    Raises
    ------
    SepViTError
        If the form has another layout: its unit has no dense prediction yet.
    """
    if form.block is not rows.Block:
        known = ", ".join(name for name, form in FORMS.items() if form.block is rows.Block)
        raise SepViTError(
            f"the edge form {form.name} has no dense prediction; forms that have: {known}"
        )
    return replace(form, block=padded.Block, dsa=padded.DSA, psa=padded.psa)


class DenseStage(Stage):
    """A stage, and the norm of its output, which is in the stream."""

    def __init__(
        self, form: Form, weights: StageWeights, previous: Sides | None, norm: NormWeights
    ) -> None:
        super().__init__(form, weights, previous, batch=1)
        self.norm = form.norm(norm)

    def forward(self, x: Tensor, taps: Taps, name: str) -> Tensor:
        """The previous stage's stream, or the input's map -> the normed stream."""
        x = self.norm(super().forward(x, taps, name))
        taps.keep(f"{name}.norm", x)
        return x


class DenseEdgeModel(EdgeModel):
    """The edge form of a dense model, for one image of its configured size.

    Parameters
    ----------
    model : DenseModel
        The reference; its weights are copied.
    form : Form
        One of `FORMS` with a stream of rows.
    taps : bool
        Also return the output of every part (`tap_names`), for parity by block.

    Examples
    --------
    >>> import sepvit_edge
    >>> model = sepvit_edge.create_model(
    ...     "lite", task="segmentation", num_classes=3, input_size=(64, 96), channels=8
    ... )
    >>> edge = DenseEdgeModel(model.eval())
    >>> edge(edge.example_input()).shape
    torch.Size([1, 3, 16, 24])
    """

    config: DenseConfig  # type: ignore[assignment]

    def __init__(self, model: DenseModel, form: Form = FORMS["rows"], taps: bool = False) -> None:
        nn.Module.__init__(self)
        weights, own = fold_dense(model), dense_form(form)
        sides = [stage.sides for stage in weights.stages]
        self.config, self.batch, self.form, self.taps = model.config, 1, form, taps
        self.input = form.pixels(weights.mean)
        self.stages = nn.ModuleList(
            DenseStage(own, stage, previous, norm)
            for stage, norm, previous in zip(
                weights.stages, weights.norms, [None, *sides[:-1]], strict=True
            )
        )
        self.neck = FPN(weights.neck, sides) if weights.neck is not None else None
        self.head = _HEADS[type(weights.head)](weights.head, sides)
        self.eval()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in front of the taps."""
        return OUTPUTS[self.config.answer]

    @property
    def tap_names(self) -> list[str]:
        """Names of the outputs after the model's own, in order."""
        names: list[str] = []
        for tap in super().tap_names:
            stage = tap.split(".")[1]
            if names and names[-1].split(".")[1] != stage:
                names.append(f"stages.{names[-1].split('.')[1]}.norm")
            names.append(tap)
        if self.taps:
            names.append("stages.3.norm")
            names += [f"neck.{i}" for i in range(self.levels)]
        return names

    @property
    def levels(self) -> int:
        """Number of levels of the neck; 0 without one."""
        if self.neck is None:
            return 0
        return len(self.neck.levels) + len(self.neck.extra) + self.neck.pooled

    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the outputs in front of the taps."""
        (height, width), classes = self.config.input_size, self.config.num_classes
        if self.config.task == "segmentation":
            return [(1, classes, height // 4, width // 4)]
        two_stage = self.config.answer == "instance-segmentation"
        first = STRIDES[0] if two_stage else STRIDES[retinanet.FIRST_MAP]
        strides = [first * 2**level for level in range(self.levels)]
        positions = sum(-(-height // s) * -(-width // s) for s in strides)
        if not two_stage:
            anchors = retinanet.ANCHORS * positions
            return [(1, anchors, classes), (1, anchors, 4)]
        anchors, channels = mask_rcnn.ANCHORS * positions, self.config.channels
        maps = [(1, channels, height // s, width // s) for s in STRIDES]
        return [(1, anchors, 1), (1, anchors, 4), *maps]

    def example_input(self) -> Tensor:
        """Return zero pixels of the shape and dtype that `forward` takes."""
        return self.form.pixels.example(1, *self.config.input_size)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Predict from RGB pixels 0-255.

        Parameters
        ----------
        pixels : Tensor
            uint8 (1, H, W, 3) or float32 (1, 3, H, W), by `form.pixels`.

        Returns
        -------
        Tensor or tuple of Tensor
            Segmentation: logits (1, classes, H / 4, W / 4). Detection: class logits
            (1, A, classes) and box deltas (1, A, 4); of Mask R-CNN the first stage, as
            `DenseModel.forward`. The taps follow where they were asked for.
        """
        taps = Taps() if self.taps else NoTaps()
        x, streams = self.input(pixels), []
        for i, stage in enumerate(self.stages):
            x = stage(x, taps, f"stages.{i}")
            streams.append(x)
        if self.neck is not None:
            streams = self.neck(streams)
            for i, level in enumerate(streams):
                taps.keep(f"neck.{i}", level)
        outputs = self.head(streams)
        outputs += tuple(taps.outputs[name] for name in self.tap_names)
        return outputs if len(outputs) > 1 else outputs[0]
