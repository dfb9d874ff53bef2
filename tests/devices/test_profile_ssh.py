"""SSH for real: Debian's sshd on a loopback port, with keys made for the test."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from helpers import HANGS, Exporter, Runner, mini_digits

from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package
from sepvit_edge.profiling.connections.hosts import open_host
from sepvit_edge.profiling.connections.run import Job, run_on_host
from sepvit_edge.profiling.device_session import DeviceSession
from sepvit_edge.profiling.devices import SSHConnection
from sepvit_edge.profiling.document import Profile

pytest.importorskip("asyncssh")
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
pytestmark = pytest.mark.skipif(
    not Path(SSHD).exists(), reason="there is no sshd; run: apt-get install openssh-server"
)
QUICK = ["--runs", "3", "--seconds", "0", "--starts", "0", "--growth-runs", "0", "--threads", "1"]


class Board(NamedTuple):
    """An sshd of our own, and how to reach it."""

    connection: SSHConnection
    folder: Path
    process: subprocess.Popen

    def changed(self, **fields: object) -> SSHConnection:
        return self.connection.model_copy(update=fields)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("sshd")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, started by root, gives up its rights
    host_key, key, port = make_key(folder / "host"), make_key(folder / "user"), free_port()
    (folder / "authorized").write_text(key.with_suffix(".pub").read_text())
    (folder / "known_hosts").write_text(
        f"[127.0.0.1]:{port} {host_key.with_suffix('.pub').read_text()}"
    )
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\n"
        f"AuthorizedKeysFile {folder / 'authorized'}\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    process = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL
    )
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    else:
        pytest.skip("sshd does not start here")
    connection = SSHConnection(
        kind="ssh",
        host="127.0.0.1",
        port=port,
        user=getpass.getuser(),
        key=str(key),
        known_hosts=str(folder / "known_hosts"),
        python=sys.executable,
        folder=str(folder / "device"),
        timeout_s=120,
    )
    yield Board(connection, folder / "device", process)
    process.terminate()
    process.wait(HANGS)


def sessions(board: Board) -> list[int]:
    """Return the processes of sshd's connections."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()[1:]]
    return [pid for pid, parent in pairs if parent == board.process.pid]


def profile(connection: SSHConnection, package: Path, *arguments: str, **more: object) -> Profile:
    async def run() -> Profile:
        async with open_host(connection) as host:
            job = Job(Package(package), [*QUICK, *arguments])
            return await run_on_host(host, job, bool(more.get("bootstrap")), lambda _: None)

    return asyncio.run(run())


def test_a_package_is_copied_once_and_measured(board: Board, package_path: Path) -> None:
    first = profile(board.connection, package_path, "--device-name", "board")
    assert first.complete and first.device.name == "board"
    assert first.golden is not None and first.golden.passed
    assert first.latency is not None and first.latency.runs == 3
    files = {path: path.stat().st_mtime_ns for path in board.folder.rglob("*") if path.is_file()}
    assert {path.name for path in files} >= {"manifest.json", "model.bin", "runner.pyz"}
    damaged = next(path for path in files if path.name == "labels.txt")
    damaged.write_text("something else")
    assert profile(board.connection, package_path).complete
    again = {path: path.stat().st_mtime_ns for path in files}
    assert [path.name for path in files if again[path] != files[path]] == ["labels.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "wrong"}, "does not accept the key"),
        ({"key": "/none/key"}, "the key .* cannot be read"),
        ({"known_hosts": "other"}, "host key of 127.0.0.1 is not the one"),
        ({"known_hosts": "empty"}, "ssh-keygen -R"),
        ({"port": "closed"}, "cannot be reached"),
        ({"port": "silent", "timeout_s": 1}, "cannot be reached"),
        ({"host": "no-such-host.invalid"}, "cannot be reached"),
        ({"python": "/none/python"}, "cannot run /none/python"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    board: Board, package_path: Path, tmp_path: Path, change: dict, message: str
) -> None:
    make_key(tmp_path / "wrong")
    port = board.connection.port
    (tmp_path / "empty").touch()
    (tmp_path / "other").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'wrong.pub').read_text()}")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = {"closed": free_port(), "silent": silent.getsockname()[1]}
        change = {
            name: ports.get(value, tmp_path / value if (tmp_path / str(value)).exists() else value)
            for name, value in change.items()
        }
        change = {n: str(v) if isinstance(v, Path) else v for n, v in change.items()}
        with pytest.raises(SepViTError, match=message) as caught:
            profile(board.changed(**change), package_path)
    assert "\n" not in str(caught.value)


def test_a_device_without_the_runtime_says_what_to_do(
    board: Board, package_path: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    with pytest.raises(SepViTError, match="--bootstrap"):
        profile(board.changed(python=str(bare / "bin" / "python")), package_path)


def test_a_shell_that_prints_lines_of_its_own_is_understood(
    board: Board, package_path: Path, tmp_path: Path
) -> None:
    def shell(text: str) -> SSHConnection:
        """A Python that prints something first, as a login script does."""
        script = tmp_path / "python"
        script.write_text(f'#!/bin/sh\n{text}\nexec {sys.executable} "$@"\n')
        script.chmod(0o755)
        return board.changed(python=str(script))

    assert profile(shell("printf 'Welcome \\377\\n[]\\n{}\\n'"), package_path).complete
    with pytest.raises(SepViTError, match=r"does not answer as Python does; it printed 'Hello'"):
        profile(shell("echo Hello; exit 0"), package_path)
    with pytest.raises(SepViTError, match=r"printed more than 16 MB for one command"):
        profile(shell("yes"), package_path)


def test_bootstrap_makes_an_environment_that_is_used(board: Board) -> None:
    async def run() -> bytes:
        async with open_host(board.connection) as host:
            for _ in range(2):  # the second time it is there
                await host.bootstrap("pip-only", ["pip"])
            process = await host.start("pip-only", ["-c", "import sys; print(sys.prefix)"])
            printed = await process.read()
            await process.leave()
            return printed

    assert asyncio.run(run()).decode().strip() == str(board.folder / "venvs" / "pip-only")


def test_a_full_disk_is_named(board: Board, package_path: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may make a small disk")
    try:
        with pytest.raises(SepViTError, match=r"disk of 127\.0\.0\.1 is full"):
            profile(board.changed(folder=str(small)), package_path)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_accuracy_goes_on_after_the_connection_broke(
    board: Board,
    exported: Exporter,
    digits_checkpoint: Path,
    run_command: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = exported(mini_digits()).path
    device = tmp_path / "board.toml"
    facts = board.connection.model_dump(exclude_none=True)
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items()]
    device.write_text("\n".join(['description = "loopback"', "[connection]", *lines]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(DeviceSession, "images_at_once", 4)
    real, asked = DeviceSession.run_pixels, []

    def breaks(self: DeviceSession, pixels: np.ndarray) -> list[np.ndarray]:
        asked.append(len(pixels))
        if len(asked) == 2:
            for pid in sessions(board):
                os.kill(pid, signal.SIGKILL)
        return real(self, pixels)

    monkeypatch.setattr(DeviceSession, "run_pixels", breaks)
    arguments = (package, "--weights", digits_checkpoint, "--data", "digits", "--images", 10)
    arguments += ("--device", device, "--json")
    broken = run_command("evaluate", *arguments)
    assert broken.status == 2 and "127.0.0.1" in broken.err, broken.err
    done = run_command("evaluate", *arguments)
    assert done.status == 0 and "4 images were continued" in done.err, done.err
    assert asked == [4, 4, 4, 2]
    assert json.loads(done.out)["this_machine"]["identical"] == 10
    assert not list(board.folder.rglob("pixels.npy"))  # the runner removes what it read


def test_a_broken_connection_keeps_what_was_measured_and_leaves_nothing_running(
    board: Board, package_path: Path
) -> None:
    name = f"breaks-{os.getpid()}"

    def runners() -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if name.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return [pid for pid in found if pid != os.getpid()]

    async def run() -> Profile:
        def step(text: str) -> None:
            if text.startswith("sustained run: 1"):
                assert runners()
                for pid in sessions(board):
                    os.kill(pid, signal.SIGKILL)

        async with open_host(board.connection) as host:
            job = Job(Package(package_path), [*QUICK, "--device-name", name, "--sustained", "600"])
            return await run_on_host(host, job, False, step)

    broken = asyncio.run(run())
    assert not broken.complete and "broke" in (broken.incomplete_reason or "")
    assert broken.latency is not None and broken.latency.runs == 3
    assert broken.sustained is not None and broken.sustained.points
    deadline = time.monotonic() + 300
    while runners() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert runners() == []
