"""Quantise a checkpoint without training, and see what it costs: `python -m sepvit_edge.quantize`.

Exports calibrate by themselves (`--precision int8`); this is for choosing how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import command, console, emit_json, print_columns, progress, steps
from .cli.options import MOST_THREADS, Classes
from .errors import SepViTError

if TYPE_CHECKING:
    import numpy as np

    from .data.sample import Dataset, Sample, Taken
    from .model.reference import SepViT
    from .pipeline.scales import ScaleChoice
    from .profiling.precision_search import PrecisionPlan
    from .quantization.sensitivity import Sensitivity

_IMAGES = 64
# Accuracy needs more images than noise does.
_ACCURACY_IMAGES = 2000


@command
def main(
    weights: Annotated[
        str,
        typer.Option(
            help="A checkpoint (FILE::KEY: the weights under a key of it), or the name of a "
            "built-in one. Default: the built-in SepViT-T."
        ),
    ] = "",
    calibration: Annotated[
        str, typer.Option(help="Images to calibrate on: a folder or a built-in set.")
    ] = "",
    data: Annotated[
        str, typer.Option(help="Images to measure on: a folder or a built-in set.")
    ] = "",
    classes: Classes = "",
    images: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of images, taken evenly over the classes. Default: 64; 2000 with "
            "--within.",
            min=1,
        ),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Quantise each part alone, in turn.")
    ] = False,
    within: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            min=0,
            help="Write a recipe that leaves parts in float, so that at most this many points of "
            "top-1 are lost.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="With --within: a device in profiles/, or a TOML file.")
    ] = "",
    target: Annotated[str, typer.Option(help="With --within: runtime. Default: openvino.")] = "",
    threads: Annotated[
        int | None,
        typer.Option(
            help="With --within: threads on the device. Default: its highest.",
            min=1,
            max=MOST_THREADS,
        ),
    ] = None,
    bootstrap: Annotated[
        bool,
        typer.Option("--bootstrap", help="With --within: install the runtime on the device."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML",
            help="With --within: recipe to write. Default: <variant>-<target>-within-<points>.toml",
        ),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Write a picture of --sensitivity or --within."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare ways to choose scales; or see what each part loses in int8 (--sensitivity).

    With --within, find the parts to leave in float: those whose noise is worth the milliseconds
    that int8 saves there, measured on the device. The recipe is for `export --recipe`.
    """
    from .cli.names import check_names, check_targets

    wanted = {
        "--device": device,
        "--target": target,
        "--threads": threads,
        "--bootstrap": bootstrap,
        "--output": output,
    }
    _check_options(sensitivity, within, wanted, chart)
    check_names(weights=[weights], data=[data, calibration], classes=classes)
    check_targets([target] if target else [], ["int8"] if within is not None else [])
    from .checkpoints.builtin import default_checkpoint
    from .checkpoints.files import load_checkpoint
    from .cli.choices import choose_data
    from .data.choose import open_dataset
    from .data.sample import take_evenly
    from .model.dense import DenseModel
    from .pipeline.defaults import default_data
    from .pipeline.scales import compare_scales

    model = load_checkpoint(weights or default_checkpoint(), task=None)
    if isinstance(model, DenseModel):
        raise SepViTError(
            f"quantize is for classifiers; a model for {model.config.task} is calibrated by its "
            "export: --precision int8, with --calibration and --keep-float"
        )
    held_out = choose_data(data, classes, model.config.labels) or default_data(model)[0]
    typical = open_dataset(calibration, None, "calibration") if calibration else None
    limit = images or (_IMAGES if within is None else _ACCURACY_IMAGES)
    inputs = _Inputs(model, take_evenly(held_out, limit), typical)
    if within is not None:
        _within(inputs, within, device, target, threads, bootstrap, output, chart, json)
    elif sensitivity:
        _scan(inputs, chart, json)
    else:
        pixels, labels = inputs.read()
        with steps() as step:
            choices = list(compare_scales(model, inputs.typical, pixels, labels, step))
        _print_choices(choices, json)
    if not json:
        console.print(inputs.description)


def _check_options(
    sensitivity: bool, within: float | None, wanted: Mapping[str, object], chart: Path | None
) -> None:
    """Reject options that contradict each other, and a chart that cannot be written."""
    from .charts import load_pyplot
    from .files import check_output_file

    given = [option for option, value in wanted.items() if value]
    if within is None and given:
        raise SepViTError(f"{given[0]} is for --within; give --within POINTS too")
    if within is not None and sensitivity:
        raise SepViTError("--within shows the noise of each part too; leave --sensitivity out")
    if chart is not None:
        if within is None and not sensitivity:
            raise SepViTError("--chart draws --sensitivity or --within; give one of them too")
        check_output_file(chart, "--chart", ".png")
        load_pyplot()  # a missing matplotlib fails before the work, not after it


@dataclass(frozen=True)
class _Inputs:
    """The model and the images.

    Attributes
    ----------
    model : SepViT
        The reference.
    data : Taken
        Images to measure on.
    calibration : Dataset or None
        Typical images that were given.
    """

    model: SepViT
    data: Taken
    calibration: Dataset | None

    @property
    def typical(self) -> Dataset:
        """Images to calibrate on."""
        from .pipeline.defaults import default_calibration

        return self.calibration or default_calibration(self.model)

    @property
    def description(self) -> str:
        """Which images were taken, in words."""
        from .cli.tables import images_text
        from .pipeline.outputs import selection_of

        return images_text(len(self.data), self.data.name, selection_of(self.data))

    def read(self) -> tuple[np.ndarray, list[int | None]]:
        """Return the pixels and the labels of the images to measure on."""
        from .data.preprocess import preprocess_batch

        config = self.model.config
        samples: list[Sample] = []
        with progress(f"reading {self.data.name}", len(self.data)) as advance:
            for i in range(len(self.data)):
                samples.append(self.data[i])
                advance(1)
        pixels = preprocess_batch(
            [sample.image for sample in samples], config.preprocessing, config.image_size
        )
        return pixels, [sample.label for sample in samples]


def _scan(inputs: _Inputs, chart: Path | None, json: bool) -> None:
    from .quantization.calibration import calibrate
    from .quantization.sensitivity import draw, layers_by_part, scan

    model, quantization = inputs.model, inputs.model.quantization
    pixels, _ = inputs.read()
    if quantization is None:
        with steps() as step:
            step(f"calibrating on {inputs.typical.name}")
            quantization = calibrate(model, inputs.typical)
    count = len(layers_by_part(list(quantization.layers))) + 1
    with progress("parts", count) as advance:
        parts = scan(model, quantization, pixels, advance)
    if chart is not None:
        title = f"{model.config.variant}, {len(pixels)} images of {inputs.data.name}"
        draw(parts, chart, title)
    _print_parts(parts, json)


def _within(
    inputs: _Inputs,
    within: float,
    device: str,
    target: str,
    threads: int | None,
    bootstrap: bool,
    output: Path | None,
    chart: Path | None,
    json: bool,
) -> None:
    import numpy as np

    from .cli.precision_table import draw_plan, print_plan, say_where
    from .config.recipe import find_recipe
    from .data.overlap import refuse_overlap, refuse_seen
    from .files import check_output_file
    from .profiling.devices import load_device
    from .profiling.measuring import Request
    from .profiling.precision_search import PrecisionSearch

    model, recipe = inputs.model, find_recipe(target or "openvino", "int8")
    name, facts = load_device(device or "local")
    variant = model.config.variant
    path = output or Path(f"{variant}-{recipe.target}-within-{within:g}.toml")
    check_output_file(path, "--output", ".toml")
    if path.exists():
        raise SepViTError(f"{path} exists; give another --output")
    if not inputs.data.labelled:
        raise SepViTError(
            f"the images of {inputs.data.name} have no labels, which accuracy needs; give a folder "
            "with one folder per class by --data"
        )
    refuse_seen(inputs.data, model.source.trained_on if model.source else None)
    if model.quantization is None and not inputs.data.name.startswith("glyphs/"):
        refuse_overlap(inputs.data, inputs.typical, "calibration")
    pixels, labels = inputs.read()
    search = PrecisionSearch(
        model=model,
        recipe=recipe,
        within=within,
        pixels=pixels,
        labels=np.array(labels),
        calibration=inputs.typical,
        name=name,
        device=facts,
        request=Request(
            threads=(threads or max(facts.measuring.threads, default=None),), bootstrap=bootstrap
        ),
    )
    with steps() as step:
        plan = search.run(step)
    _write_recipe(plan, path, inputs.data.name)
    if chart is not None:
        title = f"{variant} for {recipe.target} on {name}: {plan.images} of {inputs.data.name}"
        draw_plan(plan, chart, title)
    if json:
        emit_json({"data": inputs.data.name, "output": str(path), **plan.to_json()})
    else:
        print_plan(plan)
        say_where(path)


def _write_recipe(plan: PrecisionPlan, path: Path, data: str) -> None:
    from .cli.precision_table import verdict_of
    from .config.toml import to_toml
    from .files import replacing_file

    loss = plan.loss
    comment = [
        f"Parts in float so that int8 loses at most {plan.within:g} points of top-1.",
        f"Measured: {loss.points:+.2f} points lost (95 % interval {loss.interval[0]:+.2f} to "
        f"{loss.interval[1]:+.2f}) on {plan.images} images of {data!a}; {verdict_of(plan)}.",
        f"{plan.chosen_ms:.2f} ms on {plan.device!a}; int8 {plan.int8_ms:.2f} ms, fp32 "
        f"{plan.fp32_ms:.2f} ms.",
    ]
    comment += [f"These times are not trustworthy, because {why!a}." for why in plan.doubts]
    document = plan.recipe.model_dump(mode="json", exclude_defaults=True)
    text = "".join(f"# {line}\n" for line in comment) + to_toml(document)
    with replacing_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _print_choices(choices: Sequence[ScaleChoice], json: bool) -> None:
    if json:
        emit_json([asdict(choice) for choice in choices])
        return
    rows = [
        [
            choice.scales,
            f"{choice.sqnr_db:.1f}",
            f"{choice.top1_agreement:.2%}",
            "-" if choice.top1 is None else f"{choice.top1:.2%}",
        ]
        for choice in choices
    ]
    print_columns(["scales by", "SQNR dB", "agreement", "top-1"], rows)


def _print_parts(parts: Sequence[Sensitivity], json: bool) -> None:
    from .quantization.sensitivity import by_noise

    if json:
        emit_json([asdict(part) for part in parts])
        return
    rows = [
        [part.part, str(part.layers), f"{part.sqnr_db:.1f}", f"{part.noise_share:.1%}"]
        for part in [*by_noise(parts), parts[-1]]
    ]
    print_columns(["part alone in int8", "layers", "SQNR dB", "share of noise"], rows)
    worst = by_noise(parts)[0]
    console.print(f"{worst.part} loses most; to leave it in float: --keep-float {worst.part}")


if __name__ == "__main__":
    main()
