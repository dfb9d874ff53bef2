"""The commands: what they print, and that bad input is one sentence and an exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from helpers import MINI, REPOSITORY, TESTS, Runner, jittered, random_pixels, run_process
from PIL import Image

from sepvit_edge import __version__, save_checkpoint
from sepvit_edge.__main__ import COMMANDS

ROOT_MODULES = {path.stem for path in (REPOSITORY / "sepvit_edge").glob("*.py")}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "lite.safetensors"
    save_checkpoint(jittered(MINI, image_size=32), path)
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_quick_and_loads_no_torch(name: str) -> None:
    code = (
        f"import sys; sys.argv = ['{name}', '--help']\n"
        f"from sepvit_edge.{name} import main\n"
        "try:\n    main()\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


_WITHOUT_TORCH = """
import importlib, io, sys
from contextlib import redirect_stderr, redirect_stdout

sys.modules["torch"] = None  # to import it is an error
for line in sys.stdin:
    name, *sys.argv[1:] = line.split()
    main = importlib.import_module(f"sepvit_edge.{name}").main
    try:
        main()
    except SystemExit as leaving:
        assert leaving.code == 2, line
    else:
        raise AssertionError(line)
"""
_WRONG_NAMES = """
export --target openvin
export --precision int9
export --target openvino --precision fp32 --keep-float stages.0.*
export --recipe nope
export --variant q
export --variant s
export --weights nope.pth
export --weights random --labels nope.txt
export --image-size 0
export --image-size 100000
export --data nope
export --calibration no/such/folder
export --output .
export --verify nope
predict nope photo.png
predict PACKAGE nope.png
predict PACKAGE . --threads 100000
evaluate nope
evaluate PACKAGE --data nope
evaluate PACKAGE --weights nope.pth
evaluate PACKAGE --classes nope.json
evaluate --all --target openvin
profile PACKAGE --threads 1,100000
profile PACKAGE --threads 99999999999999999999999
recommend --weights nope.pth
recommend --targets openvin
recommend --image-sizes 100
quantize --weights nope.pth
quantize --data nope
train --output o.safetensors
train --output o.safetensors --data nope
train --output no/folder/o.safetensors --data digits
train --output o.safetensors --data digits --teacher nope
bundle --app androd
bundle nope --app android
"""


def test_wrong_names_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    lines = _WRONG_NAMES.strip().replace("PACKAGE", str(TESTS / "vectors" / "package"))
    command = [sys.executable, "-c", _WITHOUT_TORCH]
    where = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], "COLUMNS": "300"}
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, cwd=tmp_path, env=where
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == len(lines.splitlines()) - 1  # typer draws a box around its own
    assert not list(tmp_path.iterdir())


def test_the_package_lists_its_commands_and_runs_them() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sepvit_edge", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    listed = run()
    assert listed.returncode == 0
    assert re.findall(r"^│ ([a-z]+)  ", listed.stdout, re.M) == list(COMMANDS)
    assert set(COMMANDS) <= ROOT_MODULES
    assert re.search(r"export +Export a model as a package", listed.stdout)
    assert run("--version").stdout == f"sepvit-edge {__version__}\n"
    unknown = run("exprot")
    assert unknown.returncode == 2 and "Did you mean 'export'" in unknown.stderr
    helped = run("predict", "--help")
    assert helped.returncode == 0 and "Usage: python -m sepvit_edge predict" in helped.stdout
    failed = run("predict", "none", "none.png")
    assert failed.returncode == 2 and failed.stderr == "error: there is no package none\n"


def test_the_shell_completes_commands_and_options() -> None:
    def complete(words: str) -> list[str]:
        environment = {"_SEPVIT_EDGE_COMPLETE": "complete_bash", "COMP_WORDS": words}
        code = (
            "import sys; sys.argv = ['sepvit-edge']; from sepvit_edge.__main__ import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, **environment, "COMP_CWORD": str(len(words.split()) - 1)},
        )
        return done.stdout.split()

    assert complete("sepvit-edge ex") == ["export"]
    assert complete("sepvit-edge export --ima") == ["--image-size", "--images"]


def test_the_version_is_told_once() -> None:
    assert metadata.version("sepvit-edge") == __version__


def test_running_as_a_module_does_not_warn() -> None:
    done = run_process("export", "--help")
    assert done.status == 0 and done.err == ""


def test_export_predict_evaluate_verify(
    run_command: Runner, tmp_path: Path, checkpoint: Path
) -> None:
    package = tmp_path / "package"
    exported = run_command("export", "--weights", checkpoint, "--output", package, "--images", 5)
    assert exported.status == 0
    for row in ("SepViT-Lite", "parameters", "MACs", "SQNR", "top-1 agreement", "p50"):
        assert row in exported.out
    manifest = json.loads((package / "manifest.json").read_text())
    assert manifest["target"] == "openvino"

    Image.fromarray(random_pixels(1, 50)[0]).save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    predicted = run_command("predict", package, tmp_path / "photo.png", "--json")
    assert predicted.status == 0
    (found,) = json.loads(predicted.out)
    assert len(found["classes"]) == 3
    both = run_command("predict", package, tmp_path / "photo.png", tmp_path / "broken.png")
    assert both.status == 2 and "photo.png" in both.out and "broken.png" in both.err

    evaluated = run_command("evaluate", package, "--images", 5, "--weights", checkpoint, "--json")
    assert evaluated.status == 0
    found = json.loads(evaluated.out)
    assert found["parity"] == manifest["parity"] and found["accuracy"] is None
    blocks = run_command("evaluate", package, "--by-block", "--weights", checkpoint)
    assert blocks.status == 0 and "stages.3.blocks.0.mlp" in blocks.out
    shutil.copytree(package, tmp_path / "copy")
    both = run_command(
        "evaluate", package, tmp_path / "copy", "--by-block", "--weights", checkpoint
    )
    row = next(line for line in both.out.splitlines() if "stages.3.blocks.0.mlp" in line)
    first, second = re.findall(r"\d+\.\d", row)
    assert both.status == 0 and first == second

    verified = run_command("export", "--verify", package, "--weights", checkpoint)
    assert verified.status == 0 and "identical" in verified.out
    missing = run_command("export", "--verify", package)
    assert missing.status == 2 and "--weights" in missing.err
    other = tmp_path / "other.safetensors"
    save_checkpoint(jittered(MINI, image_size=32, seed=1), other)
    wrong = run_command("export", "--verify", package, "--weights", other)
    assert wrong.status == 2 and "was not made from the weights" in wrong.err


def test_a_labelled_folder_gives_accuracy_and_force_replaces_a_package(
    run_command: Runner, tmp_path: Path, checkpoint: Path, package_path: Path
) -> None:
    for digit in range(3):
        (tmp_path / "data" / str(digit)).mkdir(parents=True)
        for i, pixels in enumerate(random_pixels(2, 40, seed=digit)):
            Image.fromarray(pixels).save(tmp_path / "data" / str(digit) / f"{i}.png")
    arguments = ("--weights", checkpoint, "--output", tmp_path / "p", "--data", tmp_path / "data")
    shutil.copytree(package_path, tmp_path / "p")
    there = run_command("export", *arguments, "--json")
    assert there.status == 2 and "give --force" in there.err
    done = run_command("export", *arguments, "--json", "--force")
    assert done.status == 0
    assert json.loads(done.out)["latency"]["p50_ms"] > 0
    parity = json.loads(done.out)["manifest"]["parity"]
    assert parity["images"] == 6 and parity["data"] == "data"
    assert parity["top1_package"] == parity["top1_reference"]
    verified = run_command("export", "--verify", tmp_path / "p", "--weights", checkpoint)
    assert verified.status == 2 and "--data" in verified.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "openvin"], "did you mean 'openvino'"),
        (["--recipe", "openvino-fp23"], "did you mean 'openvino-fp"),
        (["--recipe", "none/here.toml"], "there is no recipe"),
        (["--variant", "tiny"], "unknown variant 'tiny'"),
        (["--variant", "b"], "no weights ship for SepViT-B"),
        (["--precision", "fp32", "--keep-float", "head"], "--keep-float is for int8"),
        (["--keep-float", "stages.7"], "stages.7 matches no layer"),
        (["--calibration", "digits"], "needs no --calibration: the weights are quantisation-aware"),
        (["--precision", "int3"], "unknown precision 'int3'"),
        (["--recipe", "openvino-fp32", "--precision", "fp16"], "contradicts"),
        (["--image-size", "100"], "96 and 128"),
        (["--weights", "none.pth"], "there is no checkpoint"),
        (["--labels", "none.txt"], "cannot be read"),
        (["--weights", "random", "--batch", "0"], "Invalid value for '--batch'"),
        (["--weights", "random", "--data", "none"], "unknown data set"),
        (["--weights", "random", "--data", "digits"], "not the digits"),
        (["--verify", "none"], "there is no package"),
        (["--images", "0"], "Invalid value for '--images'"),
        (["--batch", "x"], "Invalid value for '--batch'"),
        (["--nonsense"], "No such option"),
    ],
)
def test_bad_options_are_one_sentence(
    run_command: Runner, arguments: list[str], message: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_command("export", *arguments)
    assert done.status == 2
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_labels_must_fit(run_command: Runner, tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    done = run_command("export", "--weights", checkpoint, "--labels", tmp_path / "labels.txt")
    assert done.status == 2 and "2 labels do not fit 10 classes" in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('target = "openvino"', "precision"),
        ('target = "openvino"\nprecision = "fp32"\nlayrnorm = 1', "layrnorm is not a known key"),
        ("target = ", "not valid TOML"),
        (
            'target = "openvino"\nprecision = "fp32"\n[options]\ninference_precison = "f32"',
            "inference_precison is not a known key",
        ),
    ],
)
def test_bad_recipes_name_the_key(
    run_command: Runner, tmp_path: Path, checkpoint: Path, text: str, message: str
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    output = tmp_path / "out"
    done = run_command(
        "export", "--recipe", tmp_path / "mine.toml", "--weights", checkpoint, "--output", output
    )
    assert done.status == 2 and message in done.err and not output.exists()


def test_a_read_only_folder_is_one_sentence(
    run_command: Runner, tmp_path: Path, checkpoint: Path
) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "locked").mkdir(mode=0o500)
    done = run_command("export", "--weights", checkpoint, "--output", tmp_path / "locked" / "p")
    assert done.status == 2 and "permission denied" in done.err


def test_a_damaged_package_is_refused_by_every_command(
    run_command: Runner, package_path: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(package_path, tmp_path / "copy"))
    with (copy / "model.bin").open("r+b") as file:
        file.write(b"\xff")
    for arguments in (("predict", copy, "x.png"), ("evaluate", copy), ("export", "--verify", copy)):
        done = run_command(*arguments)
        assert done.status == 2 and "was changed" in done.err


def test_predict_on_folders(run_command: Runner, package_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run_command("predict", package_path, tmp_path / "empty")
    assert done.status == 2 and "there is no image" in done.err
    Image.fromarray(random_pixels(1, 20)[0]).save(tmp_path / "empty" / "a.webp")
    done = run_command("predict", package_path, tmp_path / "empty", "--top", 99, "--json")
    (found,) = json.loads(done.out)
    assert done.status == 0 and len(found["classes"]) == 10


def test_an_evil_checkpoint_is_refused(run_command: Runner, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return print, ("hacked",)

    torch.save(Evil(), tmp_path / "evil.pth")
    done = run_command("export", "--weights", tmp_path / "evil.pth")
    assert done.status == 2 and "was refused" in done.err and "hacked" not in done.out


# A whole export without its long parts; argv: the moment, a package to copy, the options.
INTERRUPTED_EXPORT = """
import os, shutil, signal, sys, time
from sepvit_edge.package.folder import Package
from sepvit_edge.pipeline import export
from sepvit_edge.profiling import first_look

def interrupt(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)

def swallow(*_, **__):
    try:
        interrupt()
    except KeyboardInterrupt:
        raise RuntimeError("Conversion is failed") from None

def copy(_model, *, output, **__):
    return Package(shutil.copytree(package, output))

how, package = sys.argv.pop(1), sys.argv.pop(1)
export.export_package = {"while exporting": interrupt, "in the runtime": swallow}.get(how, copy)
first_look.first_look = interrupt
from sepvit_edge.export import main
main()
"""


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("while exporting", "error: interrupted; nothing was written\n"),
        ("in the runtime", "error: interrupted\n"),
        ("while timing", "error: interrupted; complete: out\n"),
    ],
)
def test_an_interrupted_export_says_what_is_written(moment: str, said: str, tmp_path: Path) -> None:
    arguments = [moment, str(TESTS / "vectors" / "package")]
    options = ["--weights", "random", "--image-size", "64", "--output", "out"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_EXPORT, *arguments, *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # a shell that runs the tests in the background has SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 130
    told = [line for line in done.stderr.splitlines(keepends=True) if not line.endswith(" ...\n")]
    assert "".join(told) == said
    assert (tmp_path / "out").exists() == (moment == "while timing")


# Interrupted while it imports its first library, as `python -m` and as the installed program.
EARLY = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("how", ["-m", "sepvit-edge"])
def test_ctrl_c_during_the_imports_is_one_sentence(how: str, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(EARLY)
    program = tmp_path / "sepvit-edge"
    program.write_text("from sepvit_edge.__main__ import main\nmain()\n")
    command = ["-m", "sepvit_edge.export"] if how == "-m" else [str(program)]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "error: interrupted\n")
