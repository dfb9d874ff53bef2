"""What a device answers is judged: its size, its depth, its form, and the package it is about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers import TESTS, facts_of, profile_with

from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package
from sepvit_edge.profiling.connections import answers
from sepvit_edge.profiling.connections.remote import Environment, place, read_look
from sepvit_edge.profiling.connections.run import follow
from sepvit_edge.profiling.document import Profile
from sepvit_edge.profiling.measuring import Request, measure_pairs
from sepvit_edge.profiling.pairs import read_pairs, versus
from sepvit_edge.profiling.runner.latency import time_in_turn

PACKAGE = Package(TESTS / "vectors" / "package")


class Device:
    """A process that writes what the test says."""

    def __init__(self, pieces: Iterable[bytes], status: int | None = 0, said: str = "") -> None:
        self.pieces, self.status, self.said = iter(pieces), status, said

    async def read(self) -> bytes:
        return next(self.pieces, b"")

    def write(self, data: bytes) -> None:
        pass

    async def leave(self) -> tuple[int | None, str]:
        return self.status, self.said


def answer(*lines: object, **how: Any) -> Profile:
    text = b"".join(
        line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
    )
    return asyncio.run(follow(Device([text], **how), lambda _: None, PACKAGE.manifest))


def right(**changes: Any) -> dict[str, Any]:
    """A document about the package."""
    facts = facts_of(PACKAGE.manifest) | changes
    return profile_with([5, 6, 7], package=facts).model_dump(mode="json")


def test_what_surrounds_the_answer_is_skipped() -> None:
    banner = b"Welcome to the board\n[1, 2]\n{}\nnull\n7\n{broken\n\xff\xfe\n"
    odd = [{"progress": 5}, {"point": {}}, {"point": 3}, {"document": 5}, {"document": []}]
    profile = answer(banner, *odd, {"document": right()}, {"document": None})
    assert profile.complete and profile.latency is not None and profile.latency.p50_ms == 6


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "nothing was measured: it ended with status 0"),
        ([{"document": 5}], "nothing was measured"),
        ([{"document": {}}], "nothing was measured"),
        ([{"document": {"complete": True}}], "is not a profile document"),
        ([{"document": {"complete": [], "latency": 3}}], "is not a profile document"),
        ([{"document": {"schema_version": "2.1", "latency": []}}], "is not valid"),
        ([b"[" * 100_000 + b"\n"], "nothing was measured"),
        ([b'{"document": ' + b'{"a":' * 50_000 + b"\n"], "nothing was measured"),
        (
            [{"document": right(digest="0" * 64)}],
            "another package: its digest is 000000",
        ),
        ([{"document": right(variant="b")}], "another package: its variant is b, not"),
        ([{"document": right(precision="int8")}], "another package: its precision is int8, not"),
        ([{"document": right(image_size=224)}], "another package: its image size is 224, not"),
    ],
)
def test_a_wrong_answer_is_one_sentence(lines: list[object], message: str) -> None:
    with pytest.raises(SepViTError, match=message) as caught:
        answer(*lines)
    assert "\n" not in str(caught.value)


def test_points_that_are_none_are_left_out_of_a_broken_run() -> None:
    point = {"time_s": 5.0, "runs": 3, "p50_ms": 1.0, "p90_ms": 2.0, "max_ms": 3.0}
    begun = right() | {"complete": False, "incomplete_reason": "the run did not end"}
    events = ({"document": begun}, {"point": point}, {"point": {}}, {"point": {"time_s": "x"}})
    del begun["sustained"]
    profile = answer(*events, status=None)
    assert not profile.complete and profile.sustained is not None
    assert [p.time_s for p in profile.sustained.points] == [5.0]


def test_an_endless_answer_is_ended_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    read = [0]

    def endless(piece: bytes) -> Iterable[bytes]:
        while True:
            read[0] += len(piece)
            yield piece

    async def listen(piece: bytes) -> None:
        await answers.listen(Device(endless(piece)), lambda _: None)

    line, lines = b"x" * 65536, b'{"a": 1}\n' * 4096  # one without an end, and ever more of them
    for piece, limit, of_all in ((line, 16 << 20, 256 << 20), (lines, 1 << 20, 1 << 20)):
        monkeypatch.setattr(answers, "_LONGEST_ANSWER", of_all)
        read[0] = 0
        with pytest.raises(SepViTError, match="more than any measurement has"):
            asyncio.run(listen(piece))
        assert limit < read[0] <= limit + 2 * len(piece)


def test_a_login_banner_is_no_answer() -> None:
    told = {"folder": "/home/pi/.cache/x", "free": 10, "sha256": {"a": "0"}}
    banner = "Last login: today\n{not json}\n[1]\n{}\n"
    assert read_look(f"{banner}{json.dumps(told)}\nbye\n", "pi").folder == told["folder"]
    for said in ("", "Welcome", "[]", "{}", "5", json.dumps(told | {"free": "10"}),
                 json.dumps(told | {"folder": 3}), json.dumps(told | {"folder": "/a\nb"}),
                 json.dumps(told | {"sha256": ["a"]}), "[" * 100_000):  # fmt: skip
        with pytest.raises(SepViTError, match="pi does not answer as Python does") as caught:
            read_look(said, "pi")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_files_are_placed_behind_a_banner(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    there: dict[str, str] = {}

    async def run(command: str, what: str, limit: float) -> str:
        told = {"folder": "/device/x", "free": 1 << 30, "sha256": there}
        return f"Welcome\n{json.dumps(told)}\n"

    async def copy(files: Any) -> None:
        from sepvit_edge.files import file_sha256

        assert list(files) == ["/device/x/a"]
        there["a"] = file_sha256(tmp_path / "a")

    files = {"a": tmp_path / "a"}
    environment = Environment(".cache", "python3")
    assert asyncio.run(place(files, "x", "pi", environment, run, copy)) == "/device/x"


# --- two packages in turn ---------------------------------------------------------------------


def pairs_of(ratios: Any, **changes: Any) -> dict[str, Any]:
    document = right()
    side = {name: document[name] for name in ("package", "runtime")}
    return {
        "emulated": False,
        "device": document["device"],
        "first": side,
        "second": side,
        # The machine slows down to a third, and both with it.
        "pairs_ms": [[10 + i, (10 + i) * ratio] for i, ratio in enumerate(ratios)],
    } | changes


def test_a_ratio_of_pairs_is_free_of_drift() -> None:
    faster = versus(read_pairs(pairs_of([0.79, 0.8, 0.81] * 10), "x"), "A", "B")
    assert faster.ratio == pytest.approx(0.8) and faster.pairs == 30
    assert 0.785 < faster.interval[0] <= 0.8 <= faster.interval[1] < 0.815
    assert faster.verdict == "B is 1.25 times as fast as A" and faster.doubts == ()
    slower = versus(read_pairs(pairs_of([1.24, 1.25, 1.26] * 10), "x"), "A", "B")
    assert slower.verdict == "A is 1.25 times as fast as B"
    same = versus(read_pairs(pairs_of([0.9, 1.1, 1.0] * 10), "x"), "A", "B")
    assert same.verdict == "no difference that is more than chance"
    again = versus(read_pairs(pairs_of([0.994, 0.993, 0.995] * 10), "x"), "A", "B")
    assert again.interval[1] < 1 and "loading one of them again" in again.verdict
    busy = {"interference": {"seconds": 10, "cores": 2, "others_s": 19}}
    doubted = versus(read_pairs(pairs_of([0.8] * 30, **busy), "x"), "A", "B")
    assert doubted.doubts == ("1.9 other processes ran on 2 cores",)


def test_the_turns_change_their_order() -> None:
    called: list[str] = []
    calls = {name: lambda name=name: called.append(name) for name in "AB"}
    times = time_in_turn(calls, 3)
    assert [len(times[name]) for name in "AB"] == [3, 3]
    assert "".join(called) == "AB" * 5 + "AABB" + "BBAA" + "AABB"


@pytest.mark.parametrize(
    "change",
    [{"pairs_ms": []}, {"pairs_ms": [[1]]}, {"pairs_ms": [[1, "x"]]}, {"first": 5}, {"device": {}},
     {"pairs_ms": [[0, 1]]}],
)  # fmt: skip
def test_pairs_that_are_none_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SepViTError, match="the pairs from the device are not valid"):
        read_pairs(pairs_of([1.0]) | change, "the device")


@pytest.mark.parametrize(
    ("device", "threads", "message"),
    [
        ("pixel-8", None, "the app on pixel-8 times one package at a time"),
        ("iphone-15-pro", None, "the app on iphone-15-pro times one package"),
        ("emulated-cortex-a72", None, "emulated"),
        ("local", (1, 2), "with one number of threads"),
    ],
)
def test_pairs_are_refused_where_they_cannot_be(
    device: str, threads: tuple[int, ...] | None, message: str
) -> None:
    from sepvit_edge.profiling.devices import load_device

    with pytest.raises(SepViTError, match=message):
        measure_pairs(PACKAGE, PACKAGE, *load_device(device), Request(threads=threads))


def test_two_packages_are_timed_in_turn(run_command: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    device = tmp_path / "quick.toml"
    device.write_text(
        'description = ""\n[connection]\nkind = "local"\n[measuring]\nruns = 5\nseconds = 0\n'
    )
    ab = ("--ab", PACKAGE.path, PACKAGE.path, "--device", device, "--threads", 1)
    done = run_command("profile", *ab, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["pairs"] == len(found["pairs_ms"]) == 5 and found["threads"] == 1
    assert found["interval"][0] <= found["ratio"] <= found["interval"][1]
    assert run_command("profile", PACKAGE.path, *ab).status == 2


# --- what a shell prints ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "ended", "result"),
    [
        (b"Welcome \xff\n{}\n", True, "Welcome \ufffd\n{}\n"),
        (b"no such file\n", False, "board cannot look: no such file"),
        (b"x" * 65536 * 300, True, "printed more than 16 MB for one command"),
    ],
)
def test_what_a_command_prints_is_bounded(
    tmp_path: Path, printed: bytes, ended: bool, result: str
) -> None:
    asyncssh = pytest.importorskip("asyncssh")
    from sepvit_edge.profiling.connections.ssh import SSHHost
    from sepvit_edge.profiling.devices import SSHConnection

    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key")

    async def shell(process: Any) -> None:
        try:
            for start in range(0, len(printed), 65536):
                process.stdout.write(printed[start : start + 65536])
                await process.stdout.drain()
            process.exit(0 if ended else 1)
        except (asyncssh.Error, OSError):
            pass  # the other side has heard enough

    async def run() -> str:
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[key],
            authorized_client_keys=asyncssh.import_authorized_keys(
                key.export_public_key().decode()
            ),
            process_factory=shell,
            encoding=None,
        )
        port = server.get_port()
        public = key.export_public_key().decode()
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
        connection = SSHConnection(
            kind="ssh",
            host="127.0.0.1",
            port=port,
            user="board",
            key=str(tmp_path / "key"),
            known_hosts=str(tmp_path / "known_hosts"),
            timeout_s=120,
        )
        async with server, SSHHost(connection) as host:
            host._name = "board"
            return await host._run("look", "look", 120)

    if ended and len(printed) < 100:
        assert asyncio.run(run()) == result
        return
    with pytest.raises(SepViTError, match=result):
        asyncio.run(run())
