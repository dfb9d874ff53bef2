"""The search for a package: budgets, the front, the pick, and that it goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import MINI, Runner, jittered

from sepvit_edge import save_checkpoint
from sepvit_edge.errors import SepViTError
from sepvit_edge.profiling import recommending
from sepvit_edge.profiling.budgets import parse_budget, tightest
from sepvit_edge.profiling.candidates import Candidate, pareto_front, pick
from sepvit_edge.profiling.devices import Budgets, load_device


def candidate(p90: float, accuracy: float, size: float = 1, peak: float | None = 100) -> Candidate:
    return Candidate(f"{p90}", "p", 1, accuracy, 1.0, p90 - 1, p90, size, peak)


def test_budgets_are_read() -> None:
    limits = Budgets(p90_ms=20, model_mb=10, peak_mb=300)
    assert parse_budget("p90<20ms, size<10MB,peak<=300") == limits
    assert parse_budget("") == Budgets()
    for wrong in ("p95<20ms", "p90<20MB", "p90>20", "fast"):
        with pytest.raises(SepViTError, match="is not understood"):
            parse_budget(wrong)
    with pytest.raises(SepViTError, match="allows nothing"):
        parse_budget("p90<0ms")


def test_the_device_s_budgets_hold_beside_the_command_s() -> None:
    own = Budgets(p90_ms=20, model_mb=8)
    assert tightest(own, Budgets(p90_ms=30, peak_mb=9)) == Budgets(p90_ms=20, model_mb=8, peak_mb=9)
    assert tightest(own, Budgets(p90_ms=3)).p90_ms == 3


def test_the_front_holds_what_nothing_beats() -> None:
    fast, beaten, best, slow = (
        candidate(5, 0.7),
        candidate(8, 0.6),
        candidate(10, 0.9),
        candidate(30, 0.9),
    )
    assert pareto_front([slow, best, beaten, fast]) == [fast, best]
    assert pick([slow, best, beaten, fast], Budgets()) is best
    assert pick([slow, best, fast], Budgets(p90_ms=10)) is best  # at most, as for `profile`
    assert pick([slow, best, fast], Budgets(p90_ms=9.99)) is fast
    assert pick([best], Budgets(model_mb=0.5)) is None
    unknown = candidate(5, 0.7, peak=None)
    assert pick([unknown], Budgets(peak_mb=300)) is None  # what was not measured does not fit


def test_an_interrupted_search_goes_on(
    run_command: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    save_checkpoint(jittered(MINI, image_size=32), tmp_path / "tiny.safetensors")
    device = tmp_path / "quick.toml"
    device.write_text(
        'description = ""\n[connection]\nkind = "local"\n[measuring]\nthreads = [1, 2]\n'
        'targets = ["openvino"]\nruns = 2\nseconds = 0\nstarts = 0\ngrowth_runs = 0\n'
    )
    measured: list[object] = []
    real = recommending.measure_packages

    def counted(packages, name, device, request, step):
        if len(measured) == 1 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        measured.append((packages[0].path.name, request.threads))
        # Whatever this machine does beside: what is trustworthy is kept.
        return [
            profile.model_copy(update={"trust": None, "interference": None, "before": None})
            for profile in real(packages, name, device, request, step)
        ]

    interrupted: list[bool] = []
    monkeypatch.setattr(recommending, "measure_packages", counted)
    monkeypatch.setattr("os._exit", lambda status: (_ for _ in ()).throw(SystemExit(status)))
    arguments = ("--device", device, "--folder", tmp_path / "kept", "--precisions", "fp32")
    arguments += ("--weights", tmp_path / "tiny.safetensors", "--images", 5)
    assert run_command("recommend", *arguments).status == 130
    done = run_command("recommend", *arguments, "--budget", "p90<1000000ms")
    assert done.status == 0 and "pick:" in done.out and "tiny-own-openvino-fp32" in done.out
    assert len(measured) == 2 and len(set(map(str, measured))) == 2  # none of them twice
    again = run_command("recommend", *arguments, "--budget", "size<0.001MB")
    assert again.status == 1 and "nothing that was measured fits" in again.err
    device.write_text(device.read_text() + "[budgets]\nmodel_mb = 0.001\n")
    again = run_command("recommend", *arguments)
    assert again.status == 1 and "nothing that was measured fits" in again.err
    assert len(measured) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "p95<3"), "is not understood"),
        (("--device", "emulated-cortex-a72"), "mean nothing"),
        (("--image-sizes", "big"), "takes numbers"),
        (("--targets", "tensorrt"), "unknown target 'tensorrt'"),
    ],
)
def test_bad_options_are_one_sentence(
    run_command: Runner, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = run_command("recommend", *arguments, "--folder", tmp_path / "f")
    assert done.status == 2 and message in done.err


@pytest.mark.parametrize(
    ("features", "more"),
    [
        (["AVX2", "no BF16"], set()),
        (["AVX2", "AMX-BF16"], {"openvino-bf16", "openvino-int8-bf16"}),
        (["BF16", "FP16"], set()),  # Arm's bfloat16, which OpenVINO does not use
    ],
)
def test_recipes_that_a_cpu_s_features_make_faster_are_tried(
    features: list[str], more: set[str], tmp_path: Path
) -> None:
    file = tmp_path / "box.toml"
    file.write_text(
        f'description = ""\n[hardware]\nfeatures = {features}\n'
        '[connection]\nkind = "ssh"\nhost = "box"\n'
    )
    name, device = load_device(str(file))
    search = recommending.Search(name, device, tmp_path, [""], [None], ["openvino"], [], [1])
    plain = {"openvino-fp32", "openvino-fp16", "openvino-int8"}
    assert set(search._recipes()) == plain | more
