"""Compile for Qualcomm's HTP and emulate it, in a separate process: `Worker`.

QNN's compiler and emulation are native code that takes seconds to minutes. In a process of its own
it can be interrupted at once, what it writes stays out of the terminal, and if it crashes that is
one sentence. Run as a module, this file is that process; it imports neither torch nor what needs
torch.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PROVIDER = "QNNExecutionProvider"
TRACE = "qnn_op_trace.json"  # the provider's name for it


class WorkerError(Exception):
    """The error of a failed process; `log` is its whole output."""

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(reason)
        self.log = log


class Worker:
    """The process; it answers one call after the other, and ends with this object."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (as long as this object)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def call(self, name: str, *arguments: Any) -> Any:
        """Call one of `CALLS` there.

        Raises
        ------
        WorkerError
            If it fails, or the process ends.
        """
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            pickle.dump((name, arguments), process.stdin)
            process.stdin.flush()
            good, answer = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            status = process.wait()
            how = f"signal {-status}" if status < 0 else f"status {status}"
            raise WorkerError(f"its process ended with {how}", self._text()) from None
        except KeyboardInterrupt:  # between question and answer
            self.close()
            raise
        if not good:
            raise WorkerError(answer, self._text())
        return answer

    def _text(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with suppress(BrokenPipeError):  # of what it was still to be asked
                    stream.close()

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            self.close()


# --- in the process ---------------------------------------------------------------------------

_sessions: list[Any] = []


def session_options(options: dict[str, str], entries: dict[str, str]) -> Any:
    """Options of a session whose every node is on the HTP, or which is refused."""
    import onnxruntime as ort
    import onnxruntime_qnn

    found = ort.SessionOptions()
    found.log_severity_level = 3
    # Or what the provider refuses, all of it for example, runs on the CPU without a word.
    entries = {"session.disable_cpu_ep_fallback": "1", **entries}
    for key, value in entries.items():
        found.add_session_config_entry(key, value)
    if not any(device.ep_name == PROVIDER for device in ort.get_ep_devices()):
        ort.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    devices = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
    path = {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
    found.add_provider_for_devices(devices[:1], {**path, **options})
    return found


def compile_context(model: str, options: dict[str, str], folder: str, name: str) -> None:
    """Write ``name.onnx`` around ``name_qnn.bin``, a context binary, and the provider's trace."""
    import onnxruntime as ort

    entries = {
        "ep.context_enable": "1",
        "ep.context_embed_mode": "0",
        "ep.context_file_path": os.path.join(folder, f"{name}.onnx"),
    }
    traced = {"enable_framework_op_trace": "1", "framework_op_trace_dir": folder}
    with open(model, "rb") as file:  # of a path ONNX Runtime puts a hash into the program
        content = file.read()
    ort.InferenceSession(content, session_options({**options, **traced}, entries))


def load(program: str) -> None:
    """Load what `compile_context` wrote, for `run`; the program itself tells its SoC."""
    import onnxruntime as ort

    _sessions.append(ort.InferenceSession(program, session_options({}, {})))


def run(pixels: Any) -> list[Any]:
    """Run one batch."""
    (session,) = _sessions
    return list(session.run(None, {session.get_inputs()[0].name: pixels}))


CALLS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (compile_context, load, run)
}


def main() -> None:
    """Answer calls until standard input ends; what native code prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        try:
            answer = (True, CALLS[name](*arguments))
        except Exception as error:  # ONNX Runtime's have no base class
            answer = (False, str(error))
        pickle.dump(answer, answers)
        answers.flush()
    sys.stderr.flush()
    os._exit(0)  # without native code's own clean-up, which can hang


if __name__ == "__main__":
    main()
