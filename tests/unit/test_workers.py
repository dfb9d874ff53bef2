"""Many images by several processes: the same results as by one, also when a host is lost."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import HANGS, TESTS, Runner, random_pixels
from PIL import Image

from sepvit_edge.data.dense.choose import open_dense
from sepvit_edge.data.folders import ImageFolder
from sepvit_edge.data.sample import take_evenly
from sepvit_edge.errors import SepViTError
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.answers import answer_json
from sepvit_edge.pipeline.bulk import classify_files
from sepvit_edge.pipeline.dense_scores import score_dense
from sepvit_edge.pipeline.findings import find_in_files
from sepvit_edge.pipeline.kept import kept_logits
from sepvit_edge.pipeline.outputs import run_images
from sepvit_edge.pipeline.ray_cluster import check_workers
from sepvit_edge.pipeline.reading import Work

TINY = TESTS / "vectors" / "package"  # for ONNX Runtime: it tells an image's mean colour
MANY = 50  # times that the images are given
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of a class with 40 images, of which one is damaged."""
    folder = tmp_path / "images" / open_package(TINY).package.labels[0]
    folder.mkdir(parents=True)
    for i, pixels in enumerate(random_pixels(40, 300)):
        Image.fromarray(pixels).resize((300 + i, 300)).save(folder / f"{i:02}.png")
    (folder / "05.png").write_bytes(b"\x89PNG")
    return folder


def elsewhere(items: Sequence[Any], work: Work, size: int) -> Iterator[Any]:
    """Do the work as other processes do: by copies of it, in any order."""
    copies = [pickle.loads(pickle.dumps(work)) for _ in range(2)]
    starts = range(0, len(items), size)
    done = {}
    for i in reversed(starts):
        copy = copies[i // size % 2]
        piece = pickle.loads(pickle.dumps(items[i : i + size]))
        done[i] = pickle.dumps(copy.run([copy.read(item) for item in piece]))
    yield from (pickle.loads(done[i]) for i in starts)


def test_work_can_be_done_in_other_processes_and_in_any_order(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    session, paths = open_package(TINY, threads=1), sorted(images.iterdir())
    found = list(classify_files(session, paths, 2))
    assert list(classify_files(session, paths, 2, elsewhere)) == found and found[5].error
    data = take_evenly(ImageFolder(images.parent, session.package.labels))
    here, there = [], []
    facts = run_images(session, data, take=here.append, skip_broken=True)
    options = {"take": there.append, "skip_broken": True, "engine": elsewhere}
    for turn in range(2):  # the second time from what is kept
        with pytest.raises(KeyError), kept_logits(tmp_path / "kept", {}) as kept:
            assert run_images(session, data, kept=kept, **options) == facts
            raise KeyError
        assert kept.found == turn * 39
    for a, b in zip(here * 2, there, strict=True):
        assert (a.places, a.labels) == (b.places, b.labels)
        assert np.array_equal(a.logits["logits"], b.logits["logits"])


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_dense_work_too(task: str, images: Path) -> None:
    pytest.importorskip("onnxruntime")
    session, paths = open_package(TESTS / "vectors" / task, threads=1), sorted(images.iterdir())
    here, there = (list(find_in_files(session, paths, *on)) for on in ((), (elsewhere,)))
    assert [each.image for each in here] == [each.image for each in there] == paths
    for path, one, other in zip(paths, here, there, strict=True):
        assert one.error == other.error and bool(one.error) == (path.name == "05.png")
        if one.answer is not None and other.answer is not None:
            labels = session.package.labels
            assert answer_json(one.answer, labels) == answer_json(other.answer, labels)


def test_measured_masks_do_not_depend_on_the_processes(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    session = open_package(TESTS / "vectors" / "segmentation", threads=1)
    (images / "05.png").unlink()
    (tmp_path / "set" / "masks").mkdir(parents=True)
    (tmp_path / "set" / "labels.txt").write_text("\n".join(session.package.labels))
    for i, path in enumerate(sorted(images.iterdir())):
        with Image.open(path) as image:
            mask = np.indices(image.size[::-1]).sum(0) // (50 + i) % len(session.package.labels)
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "set" / "masks" / path.name)
    images.rename(tmp_path / "set" / "images")
    data = open_dense(str(tmp_path / "set"), "segmentation", session.package.labels)
    report = score_dense(session, data)
    assert score_dense(session, data, engine=elsewhere) == report
    assert report["images"] == 39 and 0 < report["package"]["miou"] < 1


def test_a_process_refuses_another_package_in_the_same_place(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    session = pickle.dumps(open_package(TINY, threads=1))
    other = session.replace(open_package(TINY).package.manifest.digest.encode(), b"0" * 64)
    assert other != session and pickle.loads(session)
    with pytest.raises(SepViTError, match="another package there than here"):
        pickle.loads(other)


@pytest.mark.parametrize("workers", ["0", "2000", "two", "host", "ray:/x:1", "a b:1", "-1", ""])
def test_workers_that_cannot_be_are_refused(workers: str) -> None:
    with pytest.raises(SepViTError, match="--workers"):
        check_workers(workers)


@pytest.mark.parametrize("other", [["--by-block"], ["--device", "local"]])
def test_workers_do_not_go_with_other_ways(other: list[str], run_command: Runner) -> None:
    done = run_command("evaluate", TINY, *other, "--workers", 2)
    assert done.status == 2 and "--workers is for one package" in done.err


@needs_ray
def test_an_address_where_nothing_answers_is_refused(images: Path, run_command: Runner) -> None:
    pytest.importorskip("onnxruntime")
    done = run_command("predict", TINY, images, "--workers", "127.0.0.1:1")
    assert done.status == 2 and "nothing answers there" in done.err


# A head that does no work, and two hosts of one core each. Ray takes 127.0.0.1 for this machine's
# address on the network, so these have other ones on loopback. A line ends a host, or everything.
_CLUSTER = """
from ray.cluster_utils import Cluster
import socket
with socket.create_server(("127.0.0.2", 0)) as free:
    port = free.getsockname()[1]
head = {"num_cpus": 0, "node_ip_address": "127.0.0.2", "include_dashboard": False}
head["ray_client_server_port"] = port
cluster = Cluster(initialize_head=True, head_node_args=head)
hosts = [cluster.add_node(num_cpus=1, node_ip_address="127.0.0.3") for _ in range(2)]
print(f"at {cluster.address}", flush=True)
print(f"at ray://127.0.0.2:{port}", flush=True)
input()
cluster.remove_node(hosts[0], allow_graceful=False)
print("at one host less", flush=True)
input()
cluster.shutdown()
"""


@dataclass
class Cluster:
    process: subprocess.Popen[str]

    def read(self) -> str:
        assert self.process.stdout is not None
        return next(line[3:].strip() for line in self.process.stdout if line.startswith("at "))

    def write(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A Ray cluster on loopback, with the environment that its commands need too."""
    pytest.importorskip("ray")
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 64,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # 15 by default: on a busy machine they would hardly run
        "PYTHONPATH": str(TESTS.parent),
    }.items():
        monkeypatch.setenv(name, value)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", _CLUSTER], text=True, **pipes) as process:
        yield Cluster(process)
        for _ in range(2):
            with suppress(OSError):
                Cluster(process).write()


def run(*command: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", *map(str, command)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_hosts_of_which_one_is_killed_give_the_same_result(
    cluster: Cluster, images: Path, tmp_path: Path, run_command: Runner
) -> None:
    pytest.importorskip("onnxruntime")
    inside, outside = cluster.read(), cluster.read()
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    options = ["sepvit_edge.predict", TINY, *[images] * MANY, "--threads", 1, "--json", "--save"]
    alone = run(*options, one)
    assert alone.wait(HANGS) == 2
    shared = run(*options, two, "--workers", inside)
    partial = tmp_path / ".two.csv.partial"
    until = time.monotonic() + HANGS
    while not (rows := partial.exists() and partial.read_bytes().count(b"\n") - 2):
        assert shared.poll() is None and time.monotonic() < until, shared.communicate()
        time.sleep(0.02)
    cluster.write()
    assert cluster.read() == "one host less"
    assert rows < 40 * MANY and shared.poll() is None, "it had ended before the kill"
    out, err = shared.communicate(timeout=HANGS)
    assert shared.returncode == 2 and two.read_bytes() == one.read_bytes(), err
    assert len(json.loads(out)["broken"]) == 1
    arguments = ["evaluate", TINY, "--data", images.parent, "--json"]
    evaluated = run_command(*arguments)
    err = unready = "Initialization failure from server"  # it has 30 s to start, on any machine
    while unready in err and time.monotonic() < until:
        there = run(f"sepvit_edge.{arguments[0]}", *arguments[1:], "--workers", outside)
        out, err = there.communicate(timeout=HANGS)
    assert json.loads(out) == json.loads(evaluated.out), err


@pytest.mark.slow
@needs_ray
def test_processes_of_this_machine_give_the_same_result(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    options = ["sepvit_edge.predict", TINY, images, "--threads", 1, "--save"]
    assert run(*options, tmp_path / "one.csv").wait(HANGS) == 2
    two = run(*options, tmp_path / "two.csv", "--workers", 2)
    _, err = two.communicate(timeout=HANGS)
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes(), err
