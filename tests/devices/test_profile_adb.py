"""adb: the real client and server where no device is needed, else a host server in this process.

`FakeServer` speaks the protocol of adb's host server (the files OVERVIEW.TXT, SERVICES.TXT and
SYNC.TXT of the Android platform). Behind it is no Android: a shell of this machine, whose /sdcard
and /data/local/tmp are folders, an `am` that stands for the app, and a program that takes the
options of ExecuTorch's executor_runner and gives prepared answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from etdumps import write_dump
from helpers import HANGS, MINI, MINIMAL, Exporter, Runner, facts_of, jittered, mini_digits

from sepvit_edge import open_package
from sepvit_edge.data.preprocess import preprocess_batch
from sepvit_edge.data.sample import take_evenly
from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package
from sepvit_edge.pipeline.defaults import default_data
from sepvit_edge.profiling.attribution import program_of
from sepvit_edge.profiling.device_session import AppSession
from sepvit_edge.profiling.devices import ADBConnection, DeviceFile, Measuring
from sepvit_edge.profiling.document import Profile
from sepvit_edge.profiling.etdump import family_of
from sepvit_edge.profiling.measuring import Request, measure_packages
from sepvit_edge.profiling.runner.tensors import as_input

pytest.importorskip("adbutils")
from sepvit_edge.profiling.connections import adb as way

SERIAL = "FAKE0001"
APP = "sepvit.edge.app"


class Handler(socketserver.BaseRequestHandler):
    server: FakeServer

    def take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.request.recv(size - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data

    def answer(self, text: bytes) -> None:
        self.request.sendall(b"OKAY" + f"{len(text):04x}".encode() + text)

    def handle(self) -> None:
        try:
            while True:
                service = self.take(int(self.take(4), 16)).decode()
                self.server.asked.append(service)
                if not self.serve(service):
                    return
        except ConnectionError:
            return

    def serve(self, service: str) -> bool:
        """Answer one request; True where the connection goes on, with a device."""
        if service == "host:version":
            self.answer(b"0029")
        elif service in ("host:devices", "host:devices-l"):
            state = self.server.state
            self.answer(f"{SERIAL}\t{state}\n".encode() if state else b"")
        elif service.endswith("features"):
            self.answer(b"shell_v2")
        elif service.startswith("host:tport:"):
            self.request.sendall(b"OKAY" + struct.pack("<Q", 1))
            return True
        elif service.startswith("host:transport"):
            self.request.sendall(b"OKAY")
            return True
        elif service.startswith("shell"):
            self.request.sendall(b"OKAY")
            self.shell(service)
        elif service == "sync:":
            self.request.sendall(b"OKAY")
            self.sync()
        else:
            self.request.sendall(b"FAIL" + b"0007unknown")
        return False

    def shell(self, service: str) -> None:
        kind, _, command = service.partition(":")
        root = self.server.root
        environment = {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "ROOT": str(root)}
        command = self.server.local(command)
        done = subprocess.run(
            ["sh", "-c", command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if "v2" not in kind:
            self.request.sendall(done.stdout)
            return
        self.request.sendall(struct.pack("<BI", 1, len(done.stdout)) + done.stdout)
        self.request.sendall(struct.pack("<BIB", 3, 1, done.returncode))

    def sync(self) -> None:
        while True:
            order, size = self.take(4), struct.unpack("<I", self.take(4))[0]
            path = self.take(size).decode() if order != b"QUIT" else ""
            local = Path(self.server.local(path.split(",")[0]))
            if order == b"QUIT":
                return
            if order == b"STAT":
                found = local.stat() if local.exists() else None
                facts = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
                self.request.sendall(b"STAT" + struct.pack("<III", *facts))
            elif order == b"SEND":
                local.parent.mkdir(parents=True, exist_ok=True)
                with local.open("wb") as file:
                    while (piece := self.take(8))[:4] == b"DATA":
                        file.write(self.take(struct.unpack("<I", piece[4:])[0]))
                self.server.pushed.append(local.name)
                self.request.sendall(b"OKAY" + struct.pack("<I", 0))
            elif order == b"RECV":
                data = local.read_bytes()
                self.request.sendall(b"DATA" + struct.pack("<I", len(data)) + data)
                self.request.sendall(b"DONE" + struct.pack("<I", 0))


class FakeServer(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads = True, True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.state = root, "device"
        self.pushed: list[str] = []
        self.asked: list[str] = []
        self.files = root / "sdcard" / "Android" / "data" / APP / "files"
        (root / "bin").mkdir(parents=True)
        self.program("pm", f"[ $2 = {APP} ] && echo package:/x.apk")
        self.program("pidof", "[ -e $ROOT/running ] && echo 1")
        self.program("am", "echo Starting")

    def local(self, text: str) -> str:
        """Put the folders of this machine in the place of the device's."""
        for path in ("/sdcard", "/data/local/tmp"):
            text = text.replace(path, f"{self.root}{path}")
        return text

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def program(self, name: str, script: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def app_answers(self, ending: str, text: str) -> None:
        """Let the app write its result, and note what it was asked for."""
        (self.root / "answer").write_text(text)
        target = self.files / "profiles" / f"from-computer.{ending}"
        self.program(
            "am",
            f'echo "$@" > $ROOT/asked; mkdir -p {target.parent}; cp $ROOT/answer {target}',
        )

    def connection(self, **changes: object) -> ADBConnection:
        facts = {"kind": "adb", "server_port": self.port, "run_timeout_s": 120} | changes
        return ADBConnection.model_validate(facts)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setattr(way, "_POLL_S", 0.1)
    with FakeServer(tmp_path / "android") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def measured(connection: ADBConnection, package: Path, threads: int | None = 4) -> Profile:
    return way.measure_by_adb(
        connection,
        Package(package),
        name="pixel-8",
        threads=threads,
        runs=50,
        sustained_s=1,
        step=lambda _: None,
    )


def app_document(package: Path, **changes: object) -> str:
    facts = {"package": facts_of(Package(package).manifest)}
    producer = {"producer": {"name": "android-app", "version": "1"}}
    return json.dumps(MINIMAL | facts | producer | changes)


def test_the_app_measures_and_its_document_comes_back(
    server: FakeServer, package_path: Path
) -> None:
    server.app_answers("json", app_document(package_path))
    profile = measured(server.connection(), package_path)
    assert profile.producer.name == "android-app" and profile.device.name == "pixel-8"
    asked = (server.root / "asked").read_text()
    for said in (
        f"-n {APP}/.MainActivity -a sepvit.edge.action.BENCHMARK",
        f"--es package {package_path.name}",
        "--ei threads 4",
        "--ei runs 50",
        "--ei sustained 1",
    ):
        assert said in asked
    names = {file.name for file in package_path.iterdir()}
    assert set(server.pushed) == names
    there = server.files / "packages" / package_path.name
    assert all((there / name).read_bytes() == (package_path / name).read_bytes() for name in names)
    server.pushed.clear()
    (there / "labels.txt").write_text("changed")
    measured(server.connection(), package_path)
    assert server.pushed == ["labels.txt"]


def test_the_command_reaches_a_phone(
    server: FakeServer, package_path: Path, run_command: Runner, tmp_path: Path
) -> None:
    server.app_answers("json", app_document(package_path))
    device = tmp_path / "phone.toml"
    device.write_text(
        f'description = "a phone"\n[connection]\nkind = "adb"\nserver_port = {server.port}\n'
    )
    done = run_command("profile", package_path, "--device", device, "--json")
    assert done.status == 0 and json.loads(done.out)[0]["device"]["name"] == "phone"


def test_what_goes_wrong_is_one_sentence(server: FakeServer, package_path: Path) -> None:
    def fails(message: str, **changes: object) -> None:
        with pytest.raises(SepViTError, match=message) as caught:
            measured(server.connection(**changes), package_path)
        assert "\n" not in str(caught.value)

    server.app_answers("error", "unknown package: 'x'\n")
    fails("the app on pixel-8: unknown package")
    server.app_answers("json", app_document(package_path, latency=3))
    fails("document from the app is not valid: latency")
    for answer in ("5", "[]", "{", "[" * 100_000):
        server.app_answers("json", answer)
        fails("from the app is not a profile document|wrote no JSON document")
    server.app_answers("json", json.dumps(MINIMAL))
    fails("is about another package: its digest is 0000")
    shutil.rmtree(server.files / "profiles")
    server.program("am", "echo Starting")
    fails("ended without a result")
    (server.root / "running").touch()
    fails("no result within", run_timeout_s=1)
    server.program("am", "echo 'Error: Activity class does not exist.'")
    fails("cannot start the benchmark")
    fails("is not installed", app="another.app")
    fails("no device OTHER is attached", serial="OTHER")
    server.state = "unauthorized"
    fails("allow USB debugging")
    server.state = ""
    fails("one attached device is needed, there are 0")


# Stands for the app on images: gives the logits that it has for each piece of pixels.
ON_IMAGES = """
eval "$(python3 -c 'import sys, shlex; a = sys.argv
for k in ("output", "pixels", "digest"): print(k + "=" + shlex.quote(a[a.index(k) + 1]))' "$@")"
echo "$@" >> $ROOT/asked
known=$ROOT/logits/$(sha256sum < {files}/pixels/$pixels | cut -c1-64)
mkdir -p {files}/outputs
if [ "$digest" = "{digest}" ]; then cp $known {files}/outputs/$output.f32
else echo "this is another package" > {files}/outputs/$output.error; fi
"""


@pytest.fixture
def on_images(server: FakeServer, exported: Exporter) -> Path:
    """Let the app know the logits of ten digits, in pieces of four; return the package."""
    package = exported(mini_digits())
    session, (images, _) = open_package(package.path), default_data(mini_digits(), 10)
    size = package.manifest.model.image_size
    taken = take_evenly(images, 10)
    pixels = preprocess_batch(
        [taken[i].image for i in range(10)], mini_digits().config.preprocessing, size
    )
    (server.root / "logits").mkdir()
    for start in range(0, 10, 4):
        piece = pixels[start : start + 4]
        name = hashlib.sha256(piece.tobytes()).hexdigest()
        logits = session.run_pixels(piece)[0].astype("<f4")
        (server.root / "logits" / name).write_bytes(logits.tobytes())
    digest = package.manifest.digest
    server.program("am", ON_IMAGES.format(files=server.files, digest=digest))
    return package.path


def test_accuracy_of_the_app_on_a_phone(
    server: FakeServer,
    on_images: Path,
    digits_checkpoint: Path,
    run_command: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(AppSession, "images_at_once", 4)
    device = tmp_path / "phone.toml"
    device.write_text(
        f'description = "a phone"\n[connection]\nkind = "adb"\nserver_port = {server.port}\n'
    )
    asked = [
        *("evaluate", on_images, "--weights", digits_checkpoint, "--data", "digits"),
        *("--images", 10, "--json"),
    ]
    done = run_command(*asked, "--device", device)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["this_machine"]["images"] == found["this_machine"]["identical"] == 10
    assert found["accuracy"] == json.loads(run_command(*asked).out)["accuracy"]
    starts = (server.root / "asked").read_text().splitlines()
    assert len(starts) == 3 and "-a sepvit.edge.action.OUTPUTS" in starts[0]
    # A result that an earlier run left is never taken for this one's.
    (server.files / "outputs" / "from-computer.f32").write_bytes(bytes(40))
    server.program("am", "echo Starting")
    stale = run_command(*asked, "--device", device)
    assert stale.status == 2 and "ended without a result" in stale.err
    server.program("am", ON_IMAGES.format(files=server.files, digest="0" * 64))
    other = run_command(*asked, "--device", device)
    assert other.status == 2 and "the app on phone: this is another package" in other.err
    refused = run_command(*asked, "--device", device, "--bootstrap")
    assert refused.status == 2 and "--bootstrap is for devices with Python" in refused.err


# Stands for executor_runner: finds the answer to an input among prepared ones.
STAND_IN = """#!{python}
import hashlib, json, pathlib, shutil, sys
flags = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:])
known = {known}
for flag in flags:
    if flag not in known:
        sys.exit(f"ERROR: unknown command line flag '{{flag}}'")
here = pathlib.Path({answers!r})
with open(here / "asked", "a") as file:
    file.write(json.dumps(flags) + chr(10))
assert pathlib.Path(flags["model_path"]).is_file()
answer = here / hashlib.sha256(pathlib.Path(flags["inputs"]).read_bytes()).hexdigest()
if "output_file" in flags:
    shutil.copy(answer, flags["output_file"] + "-0.bin")
if "etdump_path" in flags:
    shutil.copy(here / ("dump" + flags["num_executions"]), flags["etdump_path"])
"""
FLAGS = {"model_path", "inputs", "output_file", "num_executions", "cpu_threads", "etdump_path"}


@pytest.fixture(scope="module")
def executorch_package(exported: Exporter) -> Path:
    pytest.importorskip("executorch")
    pytest.importorskip("pandas", reason="ExecuTorch's Inspector needs pandas")
    return exported(jittered(MINI), "executorch").path


@pytest.fixture
def binary(executorch_package: Path, tmp_path: Path) -> Path:
    """A stand-in whose answers are the package's own, and whose dumps have its operators."""
    answers = tmp_path / "answers"
    answers.mkdir()
    package = Package(executorch_package)
    golden = package.golden()
    for pixels, logits in zip(golden["pixels"], golden["package_logits"], strict=True):
        data = as_input(pixels[None], {"layout": "NCHW", "dtype": "float32"}).tobytes()
        (answers / hashlib.sha256(data).hexdigest()).write_bytes(logits.tobytes())
    operators = [(PRODUCTS[family], 1000) for family in families(package)]
    write_dump(answers / "dump1", operators, runs=1)
    write_dump(answers / "dump70", operators, runs=70)
    path = tmp_path / "my_executor_runner"
    path.write_text(STAND_IN.format(python=sys.executable, known=FLAGS, answers=str(answers)))
    return path


PRODUCTS = {
    "linear": "Fully Connected (NC, F32) GEMM",
    "convolution": "Convolution (NHWC, F32) IGEMM",
    "product": "Batch Matrix Multiply (NC, F32) GEMM",
    "softmax": "Softmax (NC, F32)",
}


def families(package: Package) -> list[str]:
    """Kinds of a package's products in the order of the graph."""
    found = [family_of(node) for node in program_of(package.manifest).graph.nodes]
    return [family for family in found if family in PRODUCTS]


def by_binary(server: FakeServer, package: Path, binary: Path, threads: int | None = 3) -> Profile:
    device = DeviceFile(
        description="", connection=server.connection(), measuring=Measuring(runs=50)
    )
    request = Request(threads=(threads,), binary=binary)
    (profile,) = measure_packages([Package(package)], "pixel-8", device, request)
    return profile


def test_a_program_of_the_user_measures_in_place_of_the_app(
    server: FakeServer, executorch_package: Path, binary: Path
) -> None:
    server.program("getprop", 'case $1 in *model) echo "Pixel 8";; *release) echo 15;; esac')
    server.program("nproc", "echo 9")
    profile = by_binary(server, executorch_package, binary)
    assert profile.complete and profile.producer.name == "executor-runner"
    assert (profile.device.name, profile.device.model) == ("pixel-8", "Pixel 8")
    assert (profile.device.os_version, profile.device.logical_cores) == ("15", 9)
    assert profile.golden is not None and profile.golden.images == 6
    assert profile.golden.sqnr_db is None, "the answers are the package's own, bit for bit"
    # Run number i, from 1, takes i us more than the operators; 20 runs warm up.
    assert profile.latency is not None and profile.method is not None
    products = len(families(Package(executorch_package)))
    assert profile.method.warmup_runs == 20
    assert profile.latency.runs_ms == pytest.approx([(products + i) / 1e3 for i in range(21, 71)])
    assert profile.attribution is not None
    assert sum(p.time_us for p in profile.attribution.parts) == pytest.approx(products)
    macs = Package(executorch_package).manifest.model.macs
    assert sum(part.macs for part in profile.attribution.parts) == macs
    asked = [json.loads(line) for line in (binary.parent / "answers" / "asked").open()]
    assert [flags["num_executions"] for flags in asked] == ["1"] * 6 + ["70"]
    assert {flags["cpu_threads"] for flags in asked} == {"3"}
    # What is there is not copied again.
    server.pushed.clear()
    by_binary(server, executorch_package, binary, None)
    assert set(server.pushed) == {"in"}


def test_a_program_that_computes_something_else_is_not_timed(
    server: FakeServer, executorch_package: Path, binary: Path
) -> None:
    for file in (binary.parent / "answers").iterdir():
        if len(file.name) == 64:
            logits = np.frombuffer(file.read_bytes(), np.float32)
            file.write_bytes((logits * 1.01).tobytes())  # 40 dB
    profile = by_binary(server, executorch_package, binary)
    assert not profile.complete and profile.latency is None
    assert profile.golden is not None and profile.golden.sqnr_db == pytest.approx(40, abs=0.1)
    assert "not timed" in (profile.incomplete_reason or "")


def test_what_a_program_cannot_do_is_one_sentence(
    server: FakeServer,
    executorch_package: Path,
    binary: Path,
    package_path: Path,
    run_command: Runner,
) -> None:
    def fails(message: str, package: Path = executorch_package, program: Path = binary) -> None:
        with pytest.raises(SepViTError, match=message) as caught:
            by_binary(server, package, program)
        assert "\n" not in str(caught.value)

    fails("is for openvino", package=package_path)
    fails("there is no program", program=binary.with_name("none"))
    text = binary.read_text()
    binary.write_text(text.replace("'etdump_path'", "'unknown'"))
    fails("has no event tracer")
    binary.write_text("#!/bin/sh\necho it crashed; exit 139\n")
    fails("the device cannot run my_executor_runner: it crashed")
    done = run_command("profile", executorch_package, "--binary", binary, "--device", "local")
    assert done.status == 2 and "--binary is for devices that are reached by adb" in done.err


@pytest.mark.skipif(shutil.which("adb") is None, reason="there is no adb; run: apt-get install adb")
def test_the_fake_speaks_to_the_real_client(server: FakeServer) -> None:
    command = ["adb", "-P", str(server.port)]
    listed = subprocess.run([*command, "devices"], capture_output=True, text=True, timeout=HANGS)
    assert f"{SERIAL}\tdevice" in listed.stdout
    source = server.root / "sent"
    source.write_text("text")
    push = [*command, "-s", SERIAL, "push", str(source), "/sdcard/sent"]
    subprocess.run(push, check=True, capture_output=True, timeout=HANGS)
    assert (server.root / "sdcard" / "sent").read_text() == "text"


@pytest.mark.skipif(shutil.which("adb") is None, reason="there is no adb; run: apt-get install adb")
def test_the_real_server_without_a_device(package_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    connection = ADBConnection(kind="adb", server_port=port)
    command = ["adb", "-P", str(port)]
    subprocess.run([*command, "start-server"], check=True, capture_output=True, timeout=HANGS)
    try:
        with pytest.raises(SepViTError, match="one attached device is needed, there are 0"):
            measured(connection, package_path)
    finally:
        subprocess.run(
            [*command, "kill-server"], check=True, timeout=HANGS, stderr=subprocess.DEVNULL
        )
