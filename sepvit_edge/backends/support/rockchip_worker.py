"""Runs in the environment of rknn-toolkit2: builds for Rockchip's NPUs, and simulates them.

    python rockchip_worker.py FOLDER

FOLDER has job.json and model.onnx. For each platform of the job it writes model-PLATFORM.rknn and
build-PLATFORM.log, the compiler's own words. With ``"simulate": true`` it writes no file, but keeps
the model of the first platform in the simulator: for every line on standard input it reads
input.npy, and writes outputs.npz. Each answer is a line of JSON on standard output.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np


class Refused(Exception):
    """A failure of the toolchain."""


# The toolchain writes to standard output, from C++ too; answers take a separate descriptor.
_caller = os.fdopen(os.dup(1), "w")


def answer(**facts: Any) -> None:
    """Tell the caller; what was printed until now is in its file then."""
    sys.stdout.flush()
    print(json.dumps(facts), file=_caller, flush=True)


def write_to(path: Path) -> None:
    """Let all that is printed from now on go to a file."""
    with path.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def build(folder: Path, job: dict, platform: str) -> Any:
    """Build for one platform; return the toolchain's object, which can be simulated."""
    write_to(folder / f"build-{platform}.log")
    from rknn.api import RKNN

    rknn = RKNN(verbose=True)

    def must(what: str, result: int) -> None:
        if result != 0:
            raise Refused(f"{what} for {platform} failed")

    must("the configuration", rknn.config(target_platform=platform, **job["config"][platform]))
    must("loading the ONNX file", rknn.load_onnx(model=str(folder / "model.onnx")))
    must("the build", rknn.build(do_quantization=False))
    return rknn


def main() -> None:
    """Run as a command."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    try:
        for platform in job["platforms"]:
            rknn = build(folder, job, platform)
            if job["simulate"]:
                simulate(rknn, folder)
                return
            file = folder / f"model-{platform}.rknn"
            if rknn.export_rknn(str(file)) != 0 or not file.is_file():
                raise Refused(f"writing the file for {platform} failed")
            rknn.release()
        answer(done=True)
    except Refused as refused:
        answer(refused=str(refused))
    except Exception as error:  # the toolchain raises errors of any kind
        traceback.print_exc()
        answer(refused=f"{type(error).__name__}: {error}")


def simulate(rknn: Any, folder: Path) -> None:
    """Answer one input after the other until standard input ends."""
    if rknn.init_runtime() != 0:
        raise Refused("starting the simulator failed")
    answer(ready=True)
    for _ in sys.stdin:
        pixels = np.load(folder / "input.npy")
        outputs = rknn.inference(inputs=[pixels], data_format=["nchw"])
        if outputs is None:
            raise Refused("the simulator gave no result")
        np.savez(folder / "outputs.npz", *outputs)
        answer(done=True)


if __name__ == "__main__":
    main()
