"""Images per second and memory of `predict` and `evaluate`: `python benchmarks/many_images.py`.

One core, all cores, and two Ray workers of one core each (where Ray is installed), in turn, on
glyphs that are drawn into a folder first. Rates are those that the command tells: they begin when
the package is open and the workers are connected.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from sepvit_edge.backends.versions import versions_used
from sepvit_edge.data.glyphs import LABELS, Glyphs
from sepvit_edge.machine import usable_cores

# Ray takes 127.0.0.1 for this machine's address on the network. A line ends it.
CLUSTER = """
from ray.cluster_utils import Cluster
head = {"num_cpus": 0, "node_ip_address": "127.0.0.2", "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
for _ in range(2):
    cluster.add_node(num_cpus=1, node_ip_address="127.0.0.3")
print(f"at {cluster.address}", flush=True)
input()
cluster.shutdown()
"""
# Workers of Ray run at niceness 15 otherwise, behind everything else on this machine.
RAY = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def draw(folder: Path, count: int) -> None:
    """Draw glyphs into a folder per class, which are named by the classes' numbers."""
    glyphs = Glyphs("test", size=count)
    pairs = {f"{i:02}": label for i, label in enumerate(LABELS)}
    for name in pairs:
        (folder / name).mkdir(parents=True)
    (folder.parent / "classes.json").write_text(json.dumps(pairs))
    for i in range(count):
        sample = glyphs[i]
        sample.image.save(folder / f"{sample.label:02}" / f"{i:06}.png")


@contextmanager
def cluster() -> Iterator[str]:
    """Run two Ray workers on loopback, and yield the address of their cluster."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], text=True, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        yield next(line[3:].strip() for line in process.stdout if line.startswith("at "))
        process.stdin.write("\n")
        process.stdin.flush()


def watch_workers(ended: threading.Event, peak: list[float]) -> None:
    """Note the largest peak of resident memory (MB) of a Ray worker."""
    while not ended.wait(0.2):
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (folder / "cmdline").read_bytes().startswith(b"ray::Map"):
                    found = re.search(r"VmHWM:\s+(\d+) kB", (folder / "status").read_text())
                    peak.append(int(found[1]) / 1000 if found else 0)


def run(*words: object, core: int | None = None) -> tuple[dict[str, Any], dict[str, float]]:
    """Run a command; return what it says and the peaks of memory."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    command = [*pinned, sys.executable, "-m", *map(str, words), "--json"]
    workers, ended = [0.0], threading.Event()
    watch = threading.Thread(target=watch_workers, args=(ended, workers))
    watch.start()
    with tempfile.TemporaryFile("w+") as out, subprocess.Popen(command, stdout=out) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        watch.join()
        if process.returncode:
            sys.exit(process.returncode)
        out.seek(0)
        return json.load(out), {"command": usage.ru_maxrss / 1000, "worker": max(workers)}


def main(
    package: Annotated[Path, typer.Argument(help="A package of glyphs.")],
    images: Annotated[int, typer.Option(help="Number of images.")] = 5000,
    rounds: Annotated[int, typer.Option(help="Number of runs of each way, in turn.")] = 3,
) -> None:
    """Measure, and print JSON."""
    os.environ |= {name: os.environ.get(name, value) for name, value in RAY.items()}
    cores = usable_cores()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        draw(root / "all", images)
        draw(root / "some" / "all", images // 10)
        ways: dict[str, tuple[Sequence[object], int | None]] = {
            "one core": (["--threads", 1], cores[-1]),
            f"{len(cores)} cores": (["--threads", len(cores)], None),
        }
        rates: dict[str, list[float]] = defaultdict(list)
        memory: dict[str, list[dict[str, float]]] = defaultdict(list)
        files: dict[str, bytes] = {}
        with cluster() if find_spec("ray") else nullcontext() as address:
            if address is not None:
                ways["two Ray workers"] = (["--threads", 1, "--workers", address], None)
            for _ in range(rounds):
                for name, (options, core) in ways.items():
                    table = root / "found.csv"
                    words = ["sepvit_edge.predict", package, root / "all", "--save", table]
                    said, peak = run(*words, *options, core=core)
                    rates[name].append(said["images_per_second"])
                    memory[name].append(peak)
                    files.setdefault(name, table.read_bytes())
        growth = {}
        for part in ("some/all", "all"):
            data = ["--data", root / part, "--classes", (root / part).parent / "classes.json"]
            said, peak = run("sepvit_edge.evaluate", package, *data)
            growth[said["accuracy"]["images"]] = peak
    first = statistics.median(rates["one core"])
    print(
        json.dumps(
            {
                "images": images,
                "load": os.getloadavg(),
                "versions": versions_used(["onnxruntime", "openvino", "torch"]),
                "images_per_second": rates,
                "times_one_core": {n: statistics.median(r) / first for n, r in rates.items()},
                "peak_megabytes": memory,
                "same_file": {name: file == files["one core"] for name, file in files.items()},
                "evaluate_peak_megabytes": growth,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    typer.run(main)
