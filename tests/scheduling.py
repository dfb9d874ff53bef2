"""Which worker runs which test file (pytest-xdist)."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadFileScheduling


class FileScheduling(LoadFileScheduling):
    """Give a whole file to a worker, and go on when a worker crashes.

    xdist hands all files of a crashed worker on, also those that it had finished. For these the
    next worker has nothing to report, so it is never given more, and the run hangs. The test that
    crashed would run again and take the next worker with it.
    """

    def remove_node(self, node: Any) -> str | None:
        """Take a worker away; return the test that it crashed in, if any."""
        files = self.assigned_work.pop(node)
        unfinished = {file: tests for file, tests in files.items() if not all(tests.values())}
        if not unfinished:
            return None
        tests = next(iter(unfinished.values()))
        crashed = next(test for test, done in tests.items() if not done)
        tests[crashed] = True
        left = {file: tests for file, tests in unfinished.items() if not all(tests.values())}
        self.workqueue.update(left)
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed
