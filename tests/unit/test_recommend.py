"""The search for a package: budgets, the front, the pick, and that it goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import Runner, jittered

from sepvit_edge import save_checkpoint
from sepvit_edge.errors import SepViTError
from sepvit_edge.profiling import recommending
from sepvit_edge.profiling.recommending import Candidate, pareto_front, parse_budget, pick


def candidate(p90: float, accuracy: float, size: float = 1, peak: float | None = 100) -> Candidate:
    return Candidate(f"{p90}", "p", 1, accuracy, 1.0, p90 - 1, p90, size, peak)


def test_budgets_are_read() -> None:
    assert parse_budget("p90<20ms, size<10MB,peak<=300") == {"p90": 20, "size": 10, "peak": 300}
    assert parse_budget("") == {}
    for wrong in ("p95<20ms", "p90<20MB", "p90>20", "fast"):
        with pytest.raises(SepViTError, match="is not understood"):
            parse_budget(wrong)


def test_the_front_holds_what_nothing_beats() -> None:
    fast, beaten, best, slow = (
        candidate(5, 0.7),
        candidate(8, 0.6),
        candidate(10, 0.9),
        candidate(30, 0.9),
    )
    assert pareto_front([slow, best, beaten, fast]) == [fast, best]
    assert pick([slow, best, beaten, fast], {}) is best
    assert pick([slow, best, fast], {"p90": 10}) is fast  # "<" is strict
    assert pick([best], {"size": 0.5}) is None
    assert pick([candidate(5, 0.7, peak=None)], {"peak": 300}) is None  # unknown is not within


def test_an_interrupted_search_goes_on(
    run_command: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    save_checkpoint(jittered("lite", image_size=32), tmp_path / "tiny.safetensors")
    device = tmp_path / "quick.toml"
    device.write_text(
        'description = ""\n[connection]\nkind = "local"\n[measuring]\nthreads = [1, 2]\n'
        'targets = ["openvino"]\nruns = 2\nseconds = 0\nstarts = 0\ngrowth_runs = 0\n'
    )
    measured: list[object] = []
    real = recommending.measure_packages

    def counted(packages, name, device, plan, step):
        if len(measured) == 1 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        measured.append((packages[0].path.name, plan.threads))
        return real(packages, name, device, plan, step)

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
    assert len(measured) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "p95<3"), "is not understood"),
        (("--device", "emulated-cortex-a72"), "has no times"),
        (("--image-sizes", "big"), "take numbers"),
        (("--targets", "tensorrt"), "there is no target tensorrt"),
    ],
)
def test_bad_options_are_one_sentence(
    run_command: Runner, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = run_command("recommend", *arguments, "--folder", tmp_path / "f")
    assert done.status == 2 and message in done.err
