"""Fixtures of all tests."""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from helpers import MINI, Exporter, Outcome, jittered, mini_digits
from hypothesis import HealthCheck, settings
from PIL import Image

from sepvit_edge import metrics
from sepvit_edge.checkpoints.source import source_of
from sepvit_edge.config.recipe import Recipe, find_recipe
from sepvit_edge.model.create import ReferenceModel
from sepvit_edge.package.folder import Package
from sepvit_edge.pipeline.export import export_package

# The files that take longest, in this order before all others, so that no worker ends with one.
LONGEST = (
    "test_qualcomm",
    "test_ethos_u",
    "test_quantize",
    "test_parity",
    "test_coreml",
    "test_profile_arm64",
    "test_training",
    "test_executorch",
    "test_openvino",
    "test_onnxruntime",
)


_found: list[float] = []  # in this process, since the last test
_said: dict[str, str] = {}  # by test


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer to print what the limits in dB stand beside (docs/development/testing.md)."""
    parser.addoption("--sqnr", action="store_true", help="Print each test's SQNRs.")
    parser.addoption("--fuzz", type=int, default=100, help="Examples of each fuzzer.")


def pytest_configure(config: pytest.Config) -> None:
    """Set the number of examples; note every SQNR that is computed, if asked to print them."""
    examples = config.getoption("--fuzz")
    # The same examples in every run of CI; a run in full draws new ones.
    settings.register_profile(
        "ours",
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],  # it would depend on the machine's load
        database=None,
        derandomize=examples <= 100,
    )
    settings.load_profile("ours")
    if not config.getoption("--sqnr"):
        return
    real = metrics.sqnr_db

    def noted(signal: np.ndarray, measured: np.ndarray) -> float:
        _found.append(real(signal, measured))
        return _found[-1]

    for module in list(sys.modules.values()):
        if vars(module).get("sqnr_db") is real:
            module.sqnr_db = noted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    """Report the least and the greatest SQNR of a test and of the fixtures that it made."""
    report = yield
    if report.when == "teardown" and _found:
        said = f"{min(_found):.1f} to {max(_found):.1f} dB ({len(_found)})"
        report.user_properties.append(("sqnr", said))
        _found.clear()
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what a test, perhaps in another process, said of its SQNRs."""
    said = dict(report.user_properties).get("sqnr")
    if said and report.when == "teardown":
        _said[report.nodeid] = str(said)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    """Leave what the imports made to no garbage collection: tracing a model starts hundreds."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a whole file to a worker, as files share what they make; keep their order."""
    from scheduling import FileScheduling

    config.option.loadscopereorder = False
    return FileScheduling(config, log)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the SQNRs if asked to; tell which workers crashed, and in which test."""
    for test in sorted(_said):
        terminalreporter.write_line(f"{test}: {_said[test]}")
    session = terminalreporter.config.pluginmanager.get_plugin("dsession")
    crashes = getattr(getattr(session, "sched", None), "crashes", [])
    if crashes:
        terminalreporter.section("workers that crashed")
        for sentence in crashes:
            terminalreporter.line(sentence)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture that no model knows, 240 x 100."""
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (10, 24, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((240, 100)).save(path)
    return path


@pytest.fixture(scope="session")
def digits_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of `mini_digits`, for what reads the checkpoint of a package again."""
    from sepvit_edge.checkpoints.files import save_checkpoint

    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_checkpoint(mini_digits(), path, trained_on="digits/train")
    return path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """Export each package once for all files and all workers: `exported(model, "onnxruntime")`.

    Packages are found by their content: weights, recipe, batch, number of images. They are shared,
    so a test that changes one copies it first; opening one checks its digests.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    root = root / "packages"
    root.mkdir(exist_ok=True)

    def export(
        model: ReferenceModel,
        target: str = "openvino",
        precision: str = "fp32",
        *,
        recipe: Recipe | None = None,
        batch: int = 1,
        images: int = 8,
    ) -> Package:
        recipe = recipe or find_recipe(target, precision)
        source = source_of(model)
        facts = (model.config, source, recipe.model_dump_json(), batch, images)
        folder = root / hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                export_package(model, recipe=recipe, output=folder, batch=batch, images=images)
        return Package(folder)

    return export


@pytest.fixture(scope="session")
def package_path(exported: Exporter) -> Path:
    """A small OpenVINO package; tests that damage it copy it first."""
    pytest.importorskip("openvino")
    return exported(jittered(MINI)).path


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command in this process: `run_command("export", "--target", "openvino")`."""

    def run(name: str, *arguments: object) -> Outcome:
        module = importlib.import_module(f"sepvit_edge.{name}")
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        # Wide enough that no sentence is wrapped.
        monkeypatch.setenv("COLUMNS", "300")
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            module.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Outcome(int(leaving.value.code or 0), out, err)

    return run
