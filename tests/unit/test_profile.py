"""The profile command, its runner, and what is made of the documents."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import HANGS, MINI, Runner
from helpers import profile_with as made
from safetensors.numpy import load_file, save_file

from sepvit_edge import machine
from sepvit_edge.config.recipe import find_recipe
from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package, list_files, write_manifest
from sepvit_edge.package.session import open_package
from sepvit_edge.profiling.budgets import check_budgets
from sepvit_edge.profiling.changes import compare_profiles, slower_than_fp32
from sepvit_edge.profiling.devices import Budgets, devices, load_device
from sepvit_edge.profiling.document import Operation, Operations, Profile
from sepvit_edge.profiling.results import load_results, markdown_table, name_of, save_result
from sepvit_edge.profiling.runner import conditions, system
from sepvit_edge.profiling.runner.document import Missing
from sepvit_edge.profiling.runner.latency import distribution
from sepvit_edge.profiling.runner.runtimes.registry import open_runtime
from sepvit_edge.profiling.runner_file import runner_bytes, runner_sources, write_runner

QUICK = ("--runs", "3", "--seconds", "0", "--starts", "0", "--growth-runs", "0", "--threads", "1")
QUICK_DEVICE = """
description = "quick"
[connection]
kind = "local"
[measuring]
runs = 3
seconds = 0
starts = 1
growth_runs = 5
threads = [1]
"""


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runner's file, as devices get it."""
    return write_runner(tmp_path_factory.mktemp("runner"))


def run_runner(runner: Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, str(runner), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANGS, **options)


@pytest.fixture
def copy(package_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package_path, tmp_path / "copy"))


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(QUICK_DEVICE)
    return path


# --- the runner -------------------------------------------------------------------------------


def test_the_runner_is_python_3_9_and_imports_only_what_is_in_its_file() -> None:
    sources = runner_sources()
    modules = {name.removesuffix(".py").replace("/", ".") for name in sources}
    modules |= {name.removesuffix(".__init__") for name in modules}
    imported = set()
    for name, source in sources.items():
        assert not re.search(r"\bmatch \w+:|zip\(.*strict", source)
        package = name.split("/")[:-1]
        for node in ast.walk(ast.parse(source, feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                where = ".".join([*base, *(node.module or "").split(".")]).strip(".")
                ours = {f"{where}.{alias.name}" for alias in node.names} & modules
                imported |= ours or {where}
    outside = {name.split(".")[0] for name in imported if name not in modules}
    runtimes = {"openvino", "onnxruntime", "onnxruntime_qnn", "executorch", "ai_edge_litert"}
    runtimes |= {"rknnlite"}
    # torch: ExecuTorch's own Python runtime wants tensors. PIL: only where it is installed.
    assert outside - set(sys.stdlib_module_names) - runtimes == {"numpy", "torch", "PIL"}


def test_the_runner_has_the_versions_of_the_library() -> None:
    from sepvit_edge.package.manifest import SCHEMA_VERSION
    from sepvit_edge.profiling import document
    from sepvit_edge.profiling.runner.document import PROFILE_VERSION
    from sepvit_edge.profiling.runner.manifest import MANIFEST_VERSION

    assert (PROFILE_VERSION, MANIFEST_VERSION) == (document.SCHEMA_VERSION, SCHEMA_VERSION)


def test_the_runner_is_the_same_file_every_time(tmp_path: Path, runner: Path) -> None:
    assert write_runner(tmp_path).read_bytes() == runner.read_bytes() == runner_bytes()


def test_the_runner_needs_nothing_of_ours(runner: Path, package_path: Path, tmp_path: Path) -> None:
    # Whatever is installed, this package cannot be imported from outside of the runner's file.
    (tmp_path / "sepvit_edge").mkdir()
    (tmp_path / "sepvit_edge" / "__init__.py").write_text("raise ImportError('from outside')")
    options: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    looked = [sys.executable, "-c", "import sepvit_edge"]
    assert "from outside" in subprocess.run(looked, env=environment, **options).stderr
    command = [str(runner), str(package_path), *QUICK]
    done = subprocess.run([sys.executable, *command], env=environment, **options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"]
    without = subprocess.run([sys.executable, "-S", "-I", *command], **options)
    assert without.returncode == 2 and "numpy is not installed on this device" in without.stderr


def test_the_runner_computes_what_the_package_computes(runner: Path, package_path: Path) -> None:
    done = run_runner(runner, package_path, *QUICK, "--operations", 2, "--sustained", 0.3)
    assert done.returncode == 0, done.stderr
    profile = Profile.model_validate_json(done.stdout)
    manifest = Package(package_path).manifest
    assert profile.package.digest == manifest.digest
    assert profile.package.model_mb == pytest.approx(Package(package_path).size / 1e6)
    assert profile.golden is not None and profile.golden.preprocessing_identical
    assert profile.golden.sqnr_db is None or profile.golden.sqnr_db > 100
    assert profile.runtime.settings["INFERENCE_PRECISION_HINT"] == "f32"
    assert profile.latency is not None and profile.latency.runs == 3
    assert profile.operations is not None and profile.operations.items
    assert profile.sustained is not None and profile.sustained.points
    said = {item.what for item in profile.not_measured}
    assert {"cold_start", "roofs"} <= said
    for state in ("temperatures_c", "frequencies_mhz"):  # told, or said to be missing
        assert (getattr(profile.before, state) is None) == (f"before.{state}" in said)
    # the same adapter, the same bits as the package's own session
    golden = Package(package_path).golden()
    adapter = open_runtime(json.loads((package_path / "manifest.json").read_text()), 1, None)
    call = adapter.load(package_path / adapter.model)
    ours = open_package(package_path, 1).run_pixels(golden["pixels"][:1])[0]
    assert np.array_equal(call([golden["pixels"][:1]])[0], ours)


def test_a_device_that_computes_something_else_is_not_timed(runner: Path, copy: Path) -> None:
    golden = load_file(copy / "golden.safetensors")
    golden["package_logits"] = golden["package_logits"] + 0.01 * golden["package_logits"].std()
    save_file(golden, copy / "golden.safetensors")
    reseal(copy)
    done = run_runner(runner, copy, *QUICK)
    assert done.returncode == 1 and "not timed" in done.stderr
    profile = Profile.model_validate_json(done.stdout)
    assert profile.golden is not None and not profile.golden.passed
    assert 35 < (profile.golden.sqnr_db or 0) < 45
    assert profile.latency is None and not profile.complete


def reseal(folder: Path) -> None:
    """Write a manifest that fits changed files."""
    from sepvit_edge.package.manifest import Manifest

    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    write_manifest(manifest.model_copy(update={"files": list_files(folder)}), folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("model", "was changed"),
        ("manifest", "was changed"),
        ("missing", "labels.txt is missing"),
        ("target", "does not run under Python"),
        ("version", "but the package wants"),
        ("execution", "OpenVINO sees no NPU"),
    ],
)
def test_the_runner_refuses_with_one_sentence(
    runner: Path, copy: Path, damage: str, message: str
) -> None:
    text = (copy / "manifest.json").read_text()
    if damage == "model":
        with (copy / "model.bin").open("r+b") as file:
            file.write(b"\xff")
    elif damage == "manifest":
        (copy / "manifest.json").write_text(text.replace(f'"{MINI}"', '"t"'))
    elif damage == "missing":
        (copy / "labels.txt").unlink()
    elif damage == "target":
        (copy / "manifest.json").write_text(
            text.replace('"target": "openvino"', '"target": "coreml"')
        )
        reseal(copy)
    elif damage == "version":
        (copy / "manifest.json").write_text(
            text.replace('"minimum": "2026.4"', '"minimum": "2099.1"')
        )
        reseal(copy)
    extra = ("--execution", "NPU") if damage == "execution" else ()
    done = run_runner(runner, copy, *QUICK, *extra)
    assert done.returncode == 2 and message in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr


def test_an_attended_runner_ends_with_its_master(runner: Path, package_path: Path) -> None:
    command = [sys.executable, str(runner), str(package_path), *QUICK, "--sustained", "600"]
    process = subprocess.Popen(
        [*command, "--stream", "--attended"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdin is not None
    for line in process.stdout:
        if b"sustained run" in line:
            break
    process.stdin.close()
    assert process.wait(HANGS) == 3


def test_percentiles_are_the_documents(tmp_path: Path) -> None:
    found = distribution([i / 1e3 for i in range(1, 12)])
    assert [found[k] for k in ("min_ms", "p50_ms", "p90_ms", "max_ms")] == [1, 6, 10, 11]
    assert found["p99_ms"] == pytest.approx(10.9) and len(found["runs_ms"]) == 11


def test_limits_of_a_container_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/cpuinfo": "processor : 0\nCPU part : 0xd0b\nFeatures : asimddp atomics\n\n"
        "processor : 1\nCPU part : 0xd05\nFeatures : asimddp",
        "/proc/meminfo": "MemTotal:  8000000 kB",
        "/sys/fs/cgroup/cpu.max": "150000 100000",
        "/sys/fs/cgroup/memory.max": "1000000000",
        "/proc/device-tree/model": "Raspberry Pi 5",
        "/proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712",
        "/sys/devices/platform/soc/soc:firmware/get_throttled": "0x50004",
    }
    monkeypatch.setattr(machine, "read_text", lambda path: files.get(str(path)))
    facts = system.describe_device("pi", Missing())
    assert (facts["cpu_limit_cores"], facts["memory_limit_mb"]) == (1.5, 1000)
    assert (facts["model"], facts["soc"]) == ("Raspberry Pi 5", "brcm,bcm2712")
    assert facts["cpu_features"] == ["asimddp", "atomics"]
    assert [cluster["part"] for cluster in facts["clusters"]] == ["Cortex-A76", "Cortex-A55"]
    assert conditions.thermal_state() == "throttled"


# --- the command ------------------------------------------------------------------------------


def test_profile_prints_saves_reports_and_traces(
    run_command: Runner, package_path: Path, quick: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where kits are kept
    outputs = ("--report", tmp_path / "r.html", "--trace", tmp_path / "t.json")
    kept = ("--save", "--results", tmp_path / "results")
    done = run_command("profile", package_path, "--device", quick, *outputs, *kept, "--json")
    assert done.status == 0, done.err
    (document,) = json.loads(done.out)
    profile = Profile.model_validate(document)
    assert profile.attribution is not None and profile.roofs is not None
    assert profile.roofs.gmacs_per_s and profile.roofs.bandwidth_gb_per_s
    parts = {part.part: part for part in profile.attribution.parts}
    assert {"stages.0.blocks.0.psa", "stages.3.blocks.0.mlp", "stages.2.cpe", "head"} <= set(parts)
    macs = Package(package_path).manifest.model.macs
    assert sum(part.macs for part in parts.values()) == macs
    assert profile.cold_start is not None and profile.cold_start.starts == 1
    assert profile.memory is not None and profile.memory.growth_runs == 5

    (saved,) = (tmp_path / "results").iterdir()
    assert profile.date is not None and profile.trust is not None
    assert saved.name == f"{name_of(profile)}@{profile.date:%Y-%m-%dT%H%M%SZ}.json"
    assert load_results(saved) == [profile]
    text = saved.read_text() + (tmp_path / "r.html").read_text()
    assert os.uname().nodename not in saved.read_text() and str(tmp_path) not in saved.read_text()
    assert "http" not in re.sub(r"https?://www.w3.org", "", text), "the report needs a network"

    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    operations = [e for e in events if e.get("cat") == "operation"]
    assert len(operations) == len(profile.operations.items)  # type: ignore[union-attr]
    assert all(e["ph"] in "XM" for e in events)
    assert {e["name"] for e in events if e.get("cat") == "stage"} >= {"stage 1", "stage 4", "head"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a package"),
        (("none",), "there is no package"),
        (("PACKAGE", "--device", "raspbery-pi-5"), "did you mean 'raspberry-pi-5'"),
        (("PACKAGE", "--threads", "1,x"), "--threads takes numbers"),
        (("PACKAGE", "--threads", "0"), "--threads takes numbers"),
        (("PACKAGE", "--sustained", "long"), "is not a length of time"),
        (("PACKAGE", "--device", "iphone-15-pro"), "--app-file"),
        (("PACKAGE", "--app-file", "none.json"), "there is no document"),
        (("PACKAGE", "--bootstrap"), "--bootstrap is for other devices"),
        (("PACKAGE", "--device", "emulated-cortex-a72", "--save"), "leave --save out"),
        (("--compare", "none.json", "none.json"), "there is no result"),
        (("--table", "--results", "none"), "there are no results"),
        (("--table", "--report", "report.html"), "measures nothing"),
    ],
)
def test_bad_options_are_one_sentence(
    run_command: Runner, package_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    arguments = tuple(str(package_path) if a == "PACKAGE" else a for a in arguments)
    done = run_command("profile", *arguments, "--no-operations")
    assert done.status == 2 and message in done.err


def test_a_broken_budget_is_status_1(run_command: Runner, package_path: Path, quick: Path) -> None:
    quick.write_text(QUICK_DEVICE + "[budgets]\nmodel_mb = 1\np90_ms = 1e6\n")
    done = run_command("profile", package_path, "--device", quick, "--no-operations")
    assert done.status == 1
    assert "model on disk" in done.err and "p90" not in done.err


def test_an_int8_package_that_is_slower_than_fp32_is_named() -> None:
    int8 = {"package__precision": "int8"}
    floats = made([2, 2, 2], package__precision="fp32")
    (sentence,) = slower_than_fp32([floats, made([3, 3, 3], **int8)])
    assert "int8 is slower than fp32" in sentence and "3.00 against 2.00 ms" in sentence
    assert slower_than_fp32([floats, made([1, 1, 1], **int8)]) == []
    # Another number of threads is another measurement.
    assert slower_than_fp32([floats, made([3, 3, 3], runtime__threads=7, **int8)]) == []


def test_an_emulated_time_is_marked_and_enters_no_table(
    run_command: Runner, package_path: Path, quick: Path
) -> None:
    quick.write_text(
        QUICK_DEVICE.replace('description = "quick"', 'description = ""\nemulated = true')
    )
    done = run_command("profile", package_path, "--device", quick)
    assert done.status == 0 and "EMULATED" in done.out
    emulated = made([1, 2], emulated=True)
    assert "| 1.50 |" not in markdown_table([emulated])
    assert check_budgets([emulated], Budgets(p90_ms=1)) == []
    for refusing in (
        lambda: save_result(emulated, quick.parent),
        lambda: compare_profiles([emulated], [emulated], 0),
    ):
        with pytest.raises(SepViTError, match="emulated"):
            refusing()


def test_instructions_are_shown_and_are_no_times(
    run_command: Runner, package_path: Path, quick: Path, tmp_path: Path
) -> None:
    device = QUICK_DEVICE.replace(
        'description = "quick"', 'description = ""\nemulated = true\nclock = "instructions"'
    )
    quick.write_text(device)
    refused = run_command("profile", package_path, "--device", quick)
    assert refused.status == 2 and "starts = 0" in refused.err
    quick.write_text(device.replace("starts = 1", "starts = 0"))
    report = tmp_path / "report.html"
    done = run_command("profile", package_path, "--device", quick, "--report", report)
    assert done.status == 0 and re.search(r"instructions .* million", done.out)
    assert " ms" not in done.out
    page = report.read_text(encoding="utf-8")
    assert "instructions, million" in page and "no times" in page
    assert not re.search(r"\d ms", page)
    done = run_command("profile", package_path, "--device", quick, "--json")
    (document,) = json.loads(done.out)
    assert document["instructions"]["runs"] == 3 and document["latency"] is None
    assert {"latency", "interference"} <= {each["what"] for each in document["not_measured"]}
    done = run_command("profile", package_path, "--device", quick, "--sustained", "90s")
    assert done.status == 2 and "counts instructions" in done.err
    for arguments in (("--save",), ("--ab", package_path, package_path)):
        given = () if "--ab" in arguments else (package_path,)
        done = run_command("profile", *given, "--device", quick, *arguments)
        assert done.status == 2 and "emulated" in done.err


def test_an_app_document_is_checked(
    run_command: Runner, package_path: Path, tmp_path: Path
) -> None:
    digest = Package(package_path).manifest.digest
    path = tmp_path / "app.json"
    path.write_text(made([5, 6, 7], package__digest=digest).model_dump_json())
    done = run_command("profile", package_path, "--device", "iphone-15-pro", "--app-file", path)
    assert done.status == 0 and "p50 6.00 ms" in done.out
    path.write_text(made([5, 6, 7]).model_dump_json())
    done = run_command("profile", package_path, "--device", "iphone-15-pro", "--app-file", path)
    assert done.status == 2 and "measured another package" in done.err
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"latency_ms": 3}))  # as a later minor version may add
    done = run_command("profile", "--device", "iphone-15-pro", "--app-file", path)
    assert done.status == 0
    path.write_text(json.dumps(document | {"latency": 3}))
    done = run_command("profile", "--device", "iphone-15-pro", "--app-file", path)
    assert done.status == 2 and "is not valid: latency: Input should be" in done.err


# --- devices ----------------------------------------------------------------------------------


def test_all_devices_load() -> None:
    wanted = (
        "local raspberry-pi-5 raspberry-pi-4 intel-n100 intel-core-ultra-npu jetson-orin-nano "
        "pixel-8 galaxy-s24 iphone-15-pro rock-5b emulated-cortex-a72 emulated-cortex-a76"
    )
    assert set(wanted.split()) <= set(devices())
    for name in devices():
        device = load_device(name)[1]
        assert device.description and (name == "local" or device.hardware.source), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'description = ""\n[connection]\nkind = "ssh"\nhots = "a"\nhost = "b"',
            "line 4: connection.hots is",
        ),
        ('description = ""\n[connection]\nkind = "tls"', "line 2: connection"),
        ('description = ""\n[connection]\nkind = "ssh"', "line 2: connection.host: Field required"),
        (
            'description = ""\n[connection]\nkind = "local"\n\n[budgets]\np90_ms = -3',
            "line 6: budgets.p90_ms",
        ),
        ('description = ""\nkind = !', "line 2"),
    ],
)
def test_a_bad_device_names_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(SepViTError, match=re.escape(message)):
        load_device(tmp_path / "mine.toml")


# --- what is made of documents ----------------------------------------------------------------


def test_operations_are_attributed_by_name_and_by_neighbours() -> None:
    from sepvit_edge.profiling.attribution import OVERHEAD, Work, attribute

    names = [
        ("ReorderInput", "ReorderInput", 3),
        ("stages_0_patch_embedding_proj__convolution_nchwc", "Conv", 10),
        ("ReorderOutput", "ReorderOutput", 4),
        ("stages_0_blocks_0_dsa_q__linear", "Gemm", 20),
        ("Transpose_17", "Transpose", 5),  # both neighbours are DSA
        ("stages_0_blocks_0_dsa_k__linear", "Gemm", 20),
        ("Split_3", "Split", 7),  # between two parts: nobody's
        ("stages_0_blocks_0__add", "Add", 2),
    ]
    items = [Operation(name=n, kind=k, kernel="", mean_us=t) for n, k, t in names]
    operations = Operations(method="", runs=1, whole_us=80, items=items)
    found = attribute(operations, {"stages.0.blocks.0.dsa": Work(1000, 0.5)})
    times = {part.part: part.time_us for part in found.parts}
    assert times == {
        "stages.0.patch_embedding": 17,
        "stages.0.blocks.0.dsa": 45,
        "stages.0.blocks.0": 2,
    }
    assert found.unattributed_us == 16 and found.parts[1].macs == 1000
    nothing = Operation(name="nothing", kind=OVERHEAD, kernel="", mean_us=1.5)
    less = attribute(operations.model_copy(update={"items": [nothing, *items]}), {})
    assert sum(part.time_us for part in less.parts) == 64 - 1.5 * 7
    # Runs that the profiler made a quarter longer: its share is taken out of every part alike.
    slowed = attribute(operations.model_copy(update={"observed_us": 100.0}), {})
    assert slowed.profiler_share == 0.25 and slowed.unattributed_us == 80 - 64 / 1.25
    assert found.profiler_share is None
    # A copy took 7 of the run that was observed; in the rest no operation ran.
    assert found.inserted_us == 7 and found.between_us is None
    assert slowed.inserted_us == 7 / 1.25
    assert slowed.between_us == pytest.approx((100 - 71) / 1.25)


def test_the_work_of_the_parts_is_the_work_of_the_model(package_path: Path) -> None:
    from sepvit_edge.profiling.attribution import program_of, work_by_part

    manifest = Package(package_path).manifest
    # The recipe of a later version says nothing to this one.
    program = program_of(manifest.model_copy(update={"recipe": {"lowering": "tomorrow's"}}))
    work = work_by_part(program, "fp32")
    assert sum(w.macs for w in work.values()) == manifest.model.macs
    weights = sum(p.numel() for p in program.parameters()) * 4 / 1e6
    assert weights < sum(w.moved_mb for w in work.values()) < 3 * weights
    half = work_by_part(program, "fp16")
    assert half["stages.3.blocks.0.mlp"].moved_mb < 0.6 * work["stages.3.blocks.0.mlp"].moved_mb


def test_the_classifier_is_stored_as_the_package_s_recipe_says(package_path: Path) -> None:
    from sepvit_edge.profiling.attribution import classifier_of

    manifest = Package(package_path).manifest

    def found(target: str, recipe: dict[str, Any]) -> str:
        return classifier_of(manifest.model_copy(update={"target": target, "recipe": recipe}))

    recipe = find_recipe("openvino", "int8").model_dump(mode="json")
    for classifier in ("int8", "float"):
        recipe["quantization"]["classifier"] = classifier
        assert found("openvino", recipe) == found("executorch", recipe) == classifier
    # That of a later version says nothing to this one.
    assert found("openvino", {"lowering": "tomorrow's"}) == "int8"
    assert found("executorch", {"lowering": "tomorrow's"}) == "float"


def test_a_comparison_tells_chance_from_change() -> None:
    rng = np.random.default_rng(0)

    def runs(median: float, count: int = 400) -> np.ndarray:
        slow = np.repeat(rng.normal(0, 0.05, count // 20), 20)  # neighbours are alike
        return median * (1 + slow + np.abs(rng.normal(0, 0.02, count)))

    before, same, slower = made(runs(10)), made(runs(10)), made(runs(12))
    p50 = compare_profiles([before], [same], 0.05)[0]
    assert not p50.regression and p50.significant is False
    p50 = compare_profiles([before], [slower], 0.05)[0]
    assert p50.regression and p50.significant and p50.ratio == pytest.approx(1.2, abs=0.06)
    assert not compare_profiles([before], [slower], 0.5)[0].regression  # within the tolerance
    assert not compare_profiles([slower], [before], 0.05)[0].regression  # faster is none
    few = made([8, 12, 10, 9, 11, 13, 7]), made([8, 12, 11, 9, 12, 13, 7])
    p50 = compare_profiles([few[0]], [few[1]], 0.05)[0]
    assert p50.ratio == pytest.approx(1.1) and not p50.regression  # 10 % by chance
    bigger = made(runs(10), package__model_mb=9.0)
    changes = {c.what: c for c in compare_profiles([before], [bigger], 0.05)}
    assert changes["model on disk"].regression
    with pytest.raises(SepViTError, match="nothing in common"):
        compare_profiles(
            [before, made([1, 2], device__name="other")], [made([1], device__name="third")], 0
        )


def test_the_table_is_made_from_results(run_command: Runner, tmp_path: Path) -> None:
    save_result(made([1, 2, 3]), tmp_path)
    done = run_command("profile", "--table", "--results", tmp_path)
    assert done.status == 0
    header, _, row = done.out.strip().splitlines()
    assert header.startswith("| device |") and row.count("|") == header.count("|")
    assert "| 2.00 | 2.80 |" in row
    (kept,) = json.loads(run_command("profile", "--table", "--results", tmp_path, "--json").out)
    assert kept["latency"]["p50_ms"] == pytest.approx(2)
