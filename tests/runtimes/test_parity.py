"""Parity: the figures themselves, and that it names the part where an error was planted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import MINI, Exporter, Runner, jittered, random_pixels
from PIL import Image

from sepvit_edge.backends.interface import LoweringJob
from sepvit_edge.checkpoints.files import load_checkpoint
from sepvit_edge.config.recipe import find_recipe
from sepvit_edge.data.digits import Digits
from sepvit_edge.errors import CheckFailed
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.edge import EdgeModel, find_form
from sepvit_edge.model.edge.rows import DSA
from sepvit_edge.package.manifest import Parity, Selection
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.export import export_package
from sepvit_edge.pipeline.outputs import Rows, RunFacts
from sepvit_edge.pipeline.parity import ParityMeter, check_parity
from sepvit_edge.pipeline.taps import by_block
from sepvit_edge.pipeline.twins import run_twin

LIBRARIES = {
    "coreml": "coremltools",
    "executorch": "executorch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}


def targets(slow: tuple[str, ...] = ()) -> list[Any]:
    """Every runtime that is here; some with `-m slow` only."""
    missing = {
        target: pytest.mark.skipif(find_spec(library) is None, reason=f"{library} is not installed")
        for target, library in LIBRARIES.items()
    }
    return [
        pytest.param(target, marks=[mark, pytest.mark.slow] if target in slow else mark)
        for target, mark in missing.items()
    ]


# float32 on both sides; measured 120 dB and more.
FP32_DB = 100


def test_an_export_that_computes_something_else_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a toolchain's own error would: here the first convolution loses a sign on the way."""
    pytest.importorskip("openvino")
    from sepvit_edge.backends import openvino

    whole = openvino.write_ir

    def wrong(job: LoweringJob, folder: Path) -> object:
        job.program.state_dict["stages.0.patch_embedding.proj.weight"].neg_()
        return whole(job, folder)

    monkeypatch.setattr(openvino, "write_ir", wrong)
    with pytest.raises(CheckFailed, match="SQNR against fp32 is"):
        export_package(jittered(MINI), "openvino", output=tmp_path / "p", images=2)
    assert not list(tmp_path.iterdir())
    numbers = np.eye(2, dtype=np.float32)
    with pytest.raises(CheckFailed, match="nan dB"):
        check_parity(parity_of(numbers, numbers * np.nan, [0, 1]), "int8")


def parity_of(reference: np.ndarray, measured: np.ndarray, labels: Sequence[int | None]) -> Parity:
    """Measure it in two pieces."""
    meter, count = ParityMeter(), len(labels)
    for places in (range(1), range(1, count)):
        logits = {"reference": reference[list(places)], "logits": measured[list(places)]}
        meter.add(Rows(list(places), [labels[i] for i in places], logits))
    return meter.parity(RunFacts("data", {}, "", Selection(available=count, rule="all")))


def test_compare_counts_what_it_says() -> None:
    reference = np.eye(4, dtype=np.float32) * 4
    measured = reference.copy()
    measured[3] = [9, 0, 0, 0]
    parity = parity_of(reference, measured, [0, 1, 2, 3])
    assert (parity.top1_agreement, parity.top1_reference, parity.top1_package) == (0.75, 1, 0.75)
    assert parity.max_abs_error == 9 and parity.logits_range == 4 and parity.images == 4
    assert parity_of(reference, measured, [None] * 4).top1_reference is None


class ReturnsValues(torch.nn.Module):
    """Attention that gives V back: what a miscompiled product of one head did (trap 1)."""

    def __init__(self, right: DSA) -> None:
        super().__init__()
        self.right = right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        C, n, T = x.shape[1], self.right.count, self.right.tokens
        x = self.right.norm(x)
        tokens = self.right.window_tokens
        if tokens is not None:
            x = torch.cat((tokens, x.reshape(n, T - 1, C)), 1).reshape(n * T, C)
        return self.right.v(x) + x


@cache
def tapped(target: str) -> dict[str, np.ndarray]:
    """Outputs of the twin of a mini package in float32, lowered once for all tests here."""
    return run_twin(jittered(MINI), find_recipe(target), random_pixels(1, 64))


@pytest.mark.parametrize("target", targets())
def test_every_part_is_the_references(target: str) -> None:
    model, pixels = jittered(MINI), random_pixels(1, 64)
    taps = by_block(tapped(target), model, pixels, "fp32")
    assert [tap.name for tap in taps] == [*EdgeModel(model, taps=True).tap_names, "logits"]
    for tap in taps:
        assert tap.sqnr_db > FP32_DB and not tap.leaves, tap


# That each runtime's outputs stand at the right names is what the test above shows.
@pytest.mark.parametrize("target", targets(slow=("coreml", "executorch", "onnxruntime")))
def test_the_planted_error_is_named(target: str) -> None:
    model, pixels = jittered(MINI), random_pixels(1, 64)
    recipe = find_recipe(target)
    form = find_form(recipe.edge.form)

    def first_that_leaves(edge: EdgeModel) -> str | None:
        taps = by_block(run_twin(model, recipe, pixels, edge), model, pixels, recipe.precision)
        return next((tap.name for tap in taps if tap.leaves), None)

    wrong_scale = EdgeModel(model, 1, form, taps=True)
    wrong_scale.stages[2].blocks[0].psa.q.weight.mul_(1.25)
    assert first_that_leaves(wrong_scale) == "stages.2.blocks.0.psa"
    if target == "openvino":  # which once had this error
        values = EdgeModel(model, 1, form, taps=True)
        values.stages[0].blocks[0].dsa = ReturnsValues(values.stages[0].blocks[0].dsa)
        assert first_that_leaves(values) == "stages.0.blocks.0.dsa"


@pytest.mark.parametrize("target", targets())
def test_the_tapped_twin_is_the_package(target: str, exported: Exporter) -> None:
    package = exported(jittered(MINI), target)
    own = open_package(package.path).run_pixels(random_pixels(1, 64))[0]
    twin = tapped(target)["logits"].reshape(own.shape)
    # Taps keep some fusions from happening: the same function, not the same order of additions.
    assert sqnr_db(own, twin) > FP32_DB


def test_training_images_are_refused(
    run_command: Runner, exported: Exporter, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    training = Digits("train")
    (tmp_path / "seen").mkdir()
    training[5].image.convert("RGB").save(tmp_path / "seen" / "renamed.png")
    Image.fromarray(random_pixels(1, 20)[0]).save(tmp_path / "seen" / "new.png")
    package = exported(load_checkpoint("lite-digits", image_size=32))
    assert package.manifest.source.trained_on == "digits/train"
    done = run_command("evaluate", package.path, "--data", tmp_path / "seen")
    assert done.status == 1 and "1 images of seen are also in the training data" in done.err
