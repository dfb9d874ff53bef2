"""A script that runs in a toolchain's environment and answers in lines of JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import SepViTError
from .toolkit import Toolkit


class ToolkitProcess:
    """The process of a script in a temporary folder; ends with the block, or with this object.

    Parameters
    ----------
    toolkit : Toolkit
        The environment, complete.
    script : Path
        The script; it imports nothing of this package, and takes the folder as its argument.
    job : dict
        Written to job.json in the folder, as JSON.
    files : dict
        Links in the folder, by their names: the files that they point to.
    """

    def __init__(
        self,
        toolkit: Toolkit,
        script: Path,
        job: Mapping[str, Any],
        files: Mapping[str, Path],
    ) -> None:
        self._name = toolkit.distribution
        self._scratch = tempfile.TemporaryDirectory(prefix="sepvit-edge-")
        self.folder = Path(self._scratch.name)
        for name, file in files.items():
            os.symlink(file.absolute(), self.folder / name)
        (self.folder / "job.json").write_text(json.dumps(job))
        # In its own folder Python would import our onnxruntime.py instead of the library.
        copy = shutil.copy(script, self.folder)
        self._process = subprocess.Popen(
            [str(toolkit.python), copy, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,  # toolchains leave files where they run
            text=True,
        )
        self._finalizer = weakref.finalize(self, _end, self._process, self._scratch)

    def __enter__(self) -> ToolkitProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._finalizer()

    def ask(self) -> dict[str, Any]:
        """Send a line, and return the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # `answer` reports how it ended
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer.

        Raises
        ------
        SepViTError
            If the toolchain rejects the request, or the process ends.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            facts: dict[str, Any] = json.loads(line)
            if "refused" in facts:
                raise SepViTError(f"{self._name}: {facts['refused']}")
            return facts
        status = self._process.wait()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise SepViTError(f"{self._name} ended with {how}")


def _end(process: subprocess.Popen[str], scratch: tempfile.TemporaryDirectory[str]) -> None:
    process.kill()
    process.wait()
    scratch.cleanup()
