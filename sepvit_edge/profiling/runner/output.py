"""Progress and results of the runner: lines of JSON for a program, or text for people."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any


class Output:
    """Writes progress and results.

    Parameters
    ----------
    stream : bool
        Whether to write a line of JSON for each event, for a program that follows the run.
    """

    def __init__(self, stream: bool) -> None:
        self.stream = stream

    def _line(self, **event: object) -> None:
        print(json.dumps(event, allow_nan=False), flush=True)

    def progress(self, text: str) -> None:
        """Say what is being done."""
        if self.stream:
            self._line(progress=text)
        else:
            print(f"runner: {text}", file=sys.stderr, flush=True)

    def point(self, point: dict) -> None:
        """Write a point of the sustained run, so that it is kept if the device goes away."""
        if self.stream:
            self._line(point=point)

    def rows(self, start: int, values: Any) -> None:
        """Write the outputs of some images, float32 (N, numbers), counted from `start`."""
        data = base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")
        self._line(rows={"start": start, "shape": list(values.shape), "float32": data})

    def pairs(self, document: dict) -> None:
        """Write the times of two packages."""
        if self.stream:
            self._line(pairs=document)
        else:
            print(json.dumps(document, indent=2, allow_nan=False), flush=True)

    def document(self, document: dict, final: bool) -> None:
        """Write the document as it is so far, or the finished one."""
        if self.stream:
            self._line(document=document)
        elif final:
            print(json.dumps(document, indent=2, allow_nan=False), flush=True)
