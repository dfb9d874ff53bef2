"""labgrid for real: coordinator and exporter on loopback, a place that leads to an sshd there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import HANGS
from test_profile_ssh import QUICK, SSHD, Board, board, free_port  # noqa: F401  (a fixture)

from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package
from sepvit_edge.profiling.connections.hosts import open_host
from sepvit_edge.profiling.connections.run import Job, run_on_host
from sepvit_edge.profiling.devices import LabgridConnection
from sepvit_edge.profiling.document import Profile

pytest.importorskip("labgrid")
PROGRAMS = Path(sys.executable).parent
pytestmark = pytest.mark.skipif(
    not Path(SSHD).exists(), reason="there is no sshd; run: apt-get install openssh-server"
)


class Laboratory:
    def __init__(self, folder: Path, board: Board) -> None:  # noqa: F811
        self.coordinator = f"127.0.0.1:{free_port()}"
        self.board = board
        ssh = board.connection
        for name, port in (("board", ssh.port), ("dark", free_port())):
            (folder / f"{name}.yaml").write_text(
                f"{name}:\n  NetworkService:\n    address: 127.0.0.1\n"
                f"    username: {ssh.user}\n    port: {port}\n"
            )
        self.processes = [self.start(folder, "labgrid-coordinator", "-l", self.coordinator)]
        time.sleep(1)
        for name in ("board", "dark"):
            where = ("-c", self.coordinator, "-n", f"lab-{name}", "--hostname", "localhost")
            exporter = self.start(folder, "labgrid-exporter", *where, str(folder / f"{name}.yaml"))
            self.processes.append(exporter)
        for name in ("board", "dark"):
            self.client("-p", name, "create")
            self.client("-p", name, "add-match", f"lab-{name}/{name}/*")
            deadline = time.monotonic() + 300
            while f"lab-{name}/" not in self.client("resources") and time.monotonic() < deadline:
                time.sleep(0.3)

    def start(self, folder: Path, program: str, *arguments: str) -> subprocess.Popen:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([PROGRAMS / program, *arguments], cwd=folder, **quiet)

    def client(self, *arguments: str) -> str:
        command = [PROGRAMS / "labgrid-client", "-x", self.coordinator, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=HANGS).stdout

    def connection(self, place: str = "board") -> LabgridConnection:
        ssh = self.board.connection
        return LabgridConnection(
            kind="labgrid",
            place=place,
            coordinator=self.coordinator,
            key=ssh.key,
            python=ssh.python,
            folder=ssh.folder,
            timeout_s=30,
        )


@pytest.fixture(scope="module")
def laboratory(
    tmp_path_factory: pytest.TempPathFactory,
    board: Board,  # noqa: F811
) -> Iterator[Laboratory]:
    laboratory = Laboratory(tmp_path_factory.mktemp("laboratory"), board)
    yield laboratory
    for process in reversed(laboratory.processes):
        process.terminate()
        process.wait(HANGS)


def profile(connection: LabgridConnection, package: Path, *arguments: str) -> Profile:
    async def run() -> Profile:
        async with open_host(connection) as host:
            return await run_on_host(
                host, Job(Package(package), [*QUICK, *arguments]), False, print
            )

    return asyncio.run(run())


def test_a_place_is_acquired_used_and_released(laboratory: Laboratory, package_path: Path) -> None:
    acquired = []

    async def run() -> Profile:
        async with open_host(laboratory.connection()) as host:
            acquired.append(laboratory.client("who"))
            return await run_on_host(host, Job(Package(package_path), QUICK), False, print)

    found = asyncio.run(run())
    assert found.complete and found.golden is not None and found.golden.passed
    assert "board" in acquired[0]
    assert "board" not in laboratory.client("who")
    # in the same process once more, as the next package does
    assert profile(laboratory.connection(), package_path).complete


def test_it_is_released_when_the_measurement_fails(
    laboratory: Laboratory, package_path: Path
) -> None:
    with pytest.raises(SepViTError, match="OpenVINO sees no NPU"):
        profile(laboratory.connection(), package_path, "--execution", "NPU")
    assert "board" not in laboratory.client("who")
    with pytest.raises(SepViTError, match="place dark cannot be reached"):
        profile(laboratory.connection("dark"), package_path)
    assert "dark" not in laboratory.client("who")


def test_a_place_that_is_taken_or_unknown_is_one_sentence(
    laboratory: Laboratory, package_path: Path
) -> None:
    laboratory.client("-p", "board", "acquire")
    try:
        with pytest.raises(SepViTError, match="already acquired"):
            profile(laboratory.connection(), package_path)
        assert "board" in laboratory.client("who")  # what others hold is not released
    finally:
        laboratory.client("-p", "board", "release")
    with pytest.raises(SepViTError, match="cannot acquire place nowhere"):
        profile(laboratory.connection("nowhere"), package_path)
    lost = laboratory.connection().model_copy(update={"coordinator": f"127.0.0.1:{free_port()}"})
    with pytest.raises(SepViTError, match="labgrid"):
        profile(lost, package_path)
