"""SHA-256 of every model file by every recipe: shows whether a change of code changes a package.

    python benchmarks/model_files.py before.json     # before the change
    python benchmarks/model_files.py after.json --against before.json

Both on one machine, since the last bits of a calibration depend on the CPU. Packages of SepViT-Lite
(digits, 64 px) by each recipe in export/, and of SepViT-T (glyphs, 64 px) once a runtime. A recipe
whose toolchain is missing is listed with the reason. The cache of slow toolchains is not used;
Rockchip's needs an environment of its own, and its recipes are left out without `--toolkit-env`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NO_MODEL = ("manifest.json", "labels.txt", "golden.safetensors")
# QNN and Rockchip's toolkit write other bytes on every run; the ONNX file they read is compared.
NEVER_THE_SAME = ("_qnn.bin", ".rknn")
ROOT = Path(__file__).resolve().parents[1]
LARGE = (
    *("openvino-fp32", "openvino-int8", "executorch-fp32", "executorch-int8", "coreml-fp16"),
    *("coreml-int8", "onnxruntime-fp32", "onnxruntime-int8", "qualcomm-htp-int8", "rockchip-int8"),
)


def main() -> int:
    """Write the digests; with `--against`, exit with 1 if any of them differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="JSON file to compare with")
    parser.add_argument("--recipe", action="append", help="only this recipe; repeatable")
    parser.add_argument("--toolkit-env", help="environment of Rockchip's toolchain")
    options = parser.parse_args()
    names = sorted(path.stem for path in (ROOT / "export").glob("*.toml"))
    jobs = [("lite-digits", name) for name in names]
    jobs += [("t-glyphs-qat", name) for name in LARGE]
    if options.recipe:
        jobs = [job for job in jobs if job[1] in options.recipe]
    if options.toolkit_env:
        os.environ["SEPVIT_EDGE_TOOLKIT_ENV"] = options.toolkit_env
    else:
        jobs = [job for job in jobs if not job[1].startswith("rockchip")]
    found: dict[str, dict[str, str]] = {}
    for weights, recipe in jobs:
        start = time.monotonic()
        found[f"{weights} {recipe}"] = digests(weights, recipe)
        print(f"{weights} {recipe}: {time.monotonic() - start:.0f} s", flush=True)
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return compare(json.loads(options.against.read_text()), found) if options.against else 0


def digests(weights: str, recipe: str) -> dict[str, str]:
    """Export one package and return the SHA-256 of its model files."""
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch, "package")
        command = [sys.executable, "-m", "sepvit_edge.export", "--weights", weights, "--json"]
        command += ["--image-size", "64", "--images", "1", "--recipe", recipe]
        environment = os.environ | {"XDG_CACHE_HOME": scratch, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, "--output", str(package)], env=environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            return {"error": " ".join(done.stderr.split())[-300:]}
        files = [path for path in sorted(package.rglob("*")) if path.is_file()]
        return {
            path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if (path.parent != package or path.name not in NO_MODEL)
            and not path.name.endswith(NEVER_THE_SAME)
        }


def compare(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> int:
    """Print what differs and return the exit status."""
    differing = [
        f"{job}: {file}"
        for job in sorted(before.keys() & after.keys())
        for file in sorted(before[job].keys() | after[job].keys())
        if before[job].get(file) != after[job].get(file)
    ]
    only = sorted(before.keys() ^ after.keys())
    both = before.keys() & after.keys()
    failed = [job for job in sorted(both) if "error" in before[job] or "error" in after[job]]
    same = sum(len(before[job]) for job in both) - len(differing)
    print(f"{same} files of {len(both)} packages are the same, {len(differing)} differ")
    for title, lines in (("differs", differing), ("in one only", only), ("not exported", failed)):
        for line in lines:
            print(f"{title}: {line}")
    return 1 if differing or only else 0


if __name__ == "__main__":
    sys.exit(main())
