"""ExecuTorch with its Core ML delegate, for the Neural Engine of iPhones: model.pte.

The delegate holds an ML program. On systems without Core ML it is taken out of the file and
evaluated as `coreml` does.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

from ..config.toml import Strict
from ..errors import SepViTError
from ..package.manifest import Manifest, Placement
from ..package.verification import Verification
from .coreml import MANIFEST, UNITS, converting, ct, pipeline
from .executorch import MODEL, delegation, quiet, write_program
from .interface import LoweringJob, Session
from .support.coreml_evaluator import SPECIFICATION, WEIGHTS, EvaluatorSession
from .support.vendor import VendorPatch

_PACKER = VendorPatch(
    "executorch.backends.apple.coreml.compiler.coreml_preprocess:executorchcoreml",
    "executorch 1.4.1",
    "identifiers and a date that are new every time get into the program",
    "tests/runtimes/test_compiled.py::test_the_same_bytes_again",
)
PATCHES = (_PACKER,)


class Options(Strict):
    """Options of a recipe for the Core ML delegate.

    Attributes
    ----------
    deployment_target : str
        The oldest system that runs the package.
    compute_units : str
        Units that Core ML may use.
    """

    deployment_target: Literal["iOS16", "iOS17", "iOS18"] = "iOS17"
    compute_units: Literal["all", "cpu_and_ne", "cpu_and_gpu", "cpu_only"] = "all"


class ExecuTorchCoreMLBackend:
    """The target's backend; see `interface.Backend`."""

    target = "executorch-coreml"

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Lower to Core ML."""
        options = job.recipe.options_as(Options)
        half = job.recipe.precision != "fp32"
        with quiet(), converting(), _same_bytes():
            from executorch.backends.apple.coreml.compiler import CoreMLBackend
            from executorch.backends.apple.coreml.partition import CoreMLPartitioner

            specs = CoreMLBackend.generate_compile_specs(
                compute_unit=UNITS[options.compute_units],
                minimum_deployment_target=ct.target[options.deployment_target],
                compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
                pass_names=pipeline(half).passes,
            )
            program = write_program(job, CoreMLPartitioner(compile_specs=specs), folder)
        return delegation(program, job, "Core ML", f"Core ML, {options.compute_units}", half=half)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> Session:
        """Take the ML program out of its one delegate, for the evaluator."""
        with quiet():
            from executorch.backends.apple.coreml import executorchcoreml
            from executorch.exir._serialize._program import _extract_delegate_payload

        with tempfile.TemporaryDirectory() as scratch:
            try:
                payload = _extract_delegate_payload((folder / MODEL).read_bytes(), "CoreML")
                executorchcoreml.unflatten_directory_contents(payload, scratch)
            except (ValueError, TypeError, AttributeError, RuntimeError) as error:
                raise SepViTError(
                    f"{folder / MODEL} has no readable Core ML delegate, export again: {error}"
                ) from None
            return EvaluatorSession(Path(scratch) / "lowered_module" / "model.mlpackage", threads)

    def verification(self) -> Verification:
        """Return "evaluated": the wheel's runtime has no Core ML on any system."""
        return "evaluated"


@contextmanager
def _same_bytes() -> Iterator[None]:
    """Write the same bytes every time, without coremltools' random identifiers and date."""
    real = _PACKER.original()

    def flatten(path: str) -> bytes:
        package = Path(path) / "model.mlpackage"
        specification = ct.proto.Model_pb2.Model.FromString((package / SPECIFICATION).read_bytes())
        specification.description.metadata.Clear()
        (package / SPECIFICATION).write_bytes(specification.SerializeToString(deterministic=True))
        (package / "Manifest.json").write_text(json.dumps(MANIFEST, indent=4) + "\n")
        # The runtime caches compiled programs by identifier, so each program needs its own.
        content = hashlib.sha256()
        for file in (package / SPECIFICATION, package / WEIGHTS):
            content.update(file.read_bytes())
        metadata = Path(path) / "metadata.json"
        facts = json.loads(metadata.read_text())
        facts["identifier"] = f"executorch_{content.hexdigest()[:32]}"
        metadata.write_text(json.dumps(facts))
        data: bytes = real.flatten_directory_contents(path)
        return data

    shim = SimpleNamespace(flatten_directory_contents=flatten)
    with _PACKER.replaced_by(shim):
        yield


backend = ExecuTorchCoreMLBackend()
