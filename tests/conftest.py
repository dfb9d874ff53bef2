"""Fixtures of all tests."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from helpers import Outcome, jittered, mini_digits


@pytest.fixture(scope="session")
def digits_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of `mini_digits`, for what reads the checkpoint of a package again."""
    from sepvit_edge.checkpoints.files import save_checkpoint

    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_checkpoint(mini_digits(), path, trained_on="digits/train")
    return path


@pytest.fixture(scope="session")
def package_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small OpenVINO package, made once; tests that damage it copy it first."""
    pytest.importorskip("openvino")
    import sepvit_edge

    output = tmp_path_factory.mktemp("packages") / "lite"
    sepvit_edge.export_package(jittered("lite"), "openvino", output=output, images=8)
    return output


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
