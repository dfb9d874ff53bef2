"""Which worker runs which test file (pytest-xdist)."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress
from typing import Any

from xdist.scheduler import LoadFileScheduling


class FileScheduling(LoadFileScheduling):
    """Give a whole file to a worker, and go on when a worker crashes.

    xdist hands all files of a crashed worker on, also those that it had finished. For these the
    next worker has nothing to report, so it is never given more, and the run hangs.

    The test that a worker crashed in runs once more, in a new worker: four native runtimes share
    the process, and what one of them damaged may end it many tests later. A test that crashes again
    has failed. Every crash is in the summary.

    Attributes
    ----------
    crashes : list of str
        A sentence for each crash: worker, ending, test.
    """

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        self.crashes: list[str] = []
        self._crashed: set[str] = set()

    def remove_node(self, node: Any) -> str | None:
        """Take a worker away; return the test that it crashed in, if that has failed."""
        files = self.assigned_work.pop(node)
        unfinished = {file: tests for file, tests in files.items() if not all(tests.values())}
        if not unfinished:
            return None
        tests = next(iter(unfinished.values()))
        crashed = next(test for test, done in tests.items() if not done)
        self.crashes.append(f"{node.gateway.id} ended with {_ending(node)} in {crashed}")
        failed = crashed in self._crashed
        self._crashed.add(crashed)
        tests[crashed] = failed
        left = {file: tests for file, tests in unfinished.items() if not all(tests.values())}
        self.workqueue.update(left)
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed if failed else None

    def _reschedule(self, node: Any) -> None:
        """Give a worker more work.

        It starts a test when it knows the next one, or that there is none: with a single test it
        would wait for ever. One that replaces a crashed worker has not collected its tests yet.
        """
        if node not in self.registered_collections:
            return
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)

    def _assign_work_unit(self, node: Any) -> None:
        """Give a worker a file; one that has just ended brings it back when it is taken away."""
        with suppress(OSError):
            super()._assign_work_unit(node)


def _ending(node: Any) -> str:
    """Say how a worker's process ended."""
    try:
        status = node.gateway._io.popen.wait(10)
    except (AttributeError, subprocess.TimeoutExpired):
        return "an unknown status"
    return signal.Signals(-status).name if status < 0 else f"status {status}"
