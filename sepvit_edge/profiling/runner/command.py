"""The command: `python runner.pyz PACKAGE`.

Exit status 0: measured; 1: the golden vectors differ; 2: refused, for the reason on standard error;
3: the computer that started an attended runner went away.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from .errors import Refusal


def start() -> None:
    """Run the command, and end this process with its exit status."""
    # What native libraries print must not get between the lines of JSON.
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    status = main()
    # Runtimes' threads may still wait for work: leave without asking them.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> int:
    """Run the command, and return its exit status."""
    options = parse()
    try:
        import numpy  # noqa: F401
    except ModuleNotFoundError:
        print(
            "runner: numpy is not installed on this device; --bootstrap installs it",
            file=sys.stderr,
        )
        return 2
    from .attendance import leave_when_alone
    from .measurement import Measurement, bind_to_cores
    from .output import Output
    from .outputs import write_outputs
    from .pairs import time_pairs
    from .phases import PHASES

    try:
        if options.phase:
            bind_to_cores(options.cores)
            print(json.dumps(PHASES[options.phase](options), allow_nan=False))
            return 0
        if options.attended:
            leave_when_alone()
        if options.against is not None or options.outputs is not None:
            bind_to_cores(options.cores)
            work = time_pairs if options.against is not None else write_outputs
            return work(options, Output(options.stream))
        return Measurement(options, Output(options.stream)).run()
    except Refusal as refusal:
        print(f"runner: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parse(arguments: list | None = None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        prog="runner.pyz", description="Check and time one package on the device that this runs on."
    )
    add = parser.add_argument
    add("package", type=Path, help="folder of the package")
    add("--against", type=Path, help="time this package too, in turn with the first")
    add("--outputs", type=Path, help="write the outputs for this file of pixels; removes it")
    add("--threads", type=int, help="threads of the runtime (default: the runtime decides)")
    add("--execution", help="OpenVINO's device or ONNX Runtime's execution provider")
    add("--cores", type=core_list, help="bind the process to these cores, for example 4-7")
    add("--device-name", default="local", help="name of this device in the document")
    add("--emulated", action="store_true", help="mark every time as meaningless")
    add("--clock", choices=("time", "instructions"), default="time", help="what the clock counts")
    add("--runs", type=int, default=50, help="least number of timed runs")
    add("--seconds", type=float, default=10, help="least duration of the timed runs")
    add("--starts", type=int, default=3, help="number of cold starts")
    add("--growth-runs", type=int, default=1000, help="runs over which memory is watched")
    add("--operations", type=int, default=0, metavar="RUNS", help="time single operations")
    add("--roofs", action="store_true", help="measure bandwidth, and the rate of --kit's products")
    add("--kit", type=Path, help="folder of programs that the host lowered for this package")
    add("--sustained", type=float, default=0, metavar="S", help="length of the sustained run")
    add("--max-start-temp", type=float, metavar="C", help="cool down to this temperature first")
    add("--phase-timeout", type=float, default=300, help="longest duration of a phase in seconds")
    add("--stream", action="store_true", help="write lines of JSON as the work goes on")
    add("--attended", action="store_true", help="end when standard input ends or falls silent")
    add("--python", type=shlex.split, default=[sys.executable], help="command that runs the phases")
    add("--phase", choices=("golden", "start"), help=argparse.SUPPRESS)
    add("--started-ns", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def core_list(text: str) -> list:
    """Read core numbers from `0,2-3`."""
    cores: list = []
    for piece in text.split(","):
        low, _, high = piece.partition("-")
        cores += range(int(low), int(high or low) + 1)
    return cores
